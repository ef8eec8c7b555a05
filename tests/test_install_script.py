"""jobs/install.sh refuses a `.venv` that is not right, in one line, and leaves it as it was."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MARKER = "mixed-r1-ray"


@pytest.fixture
def clone(tmp_path):
    """A copy of what the scripts read, in a folder with a space in its name."""
    folder = tmp_path / "a clone"
    shutil.copytree(ROOT / "jobs", folder / "jobs")
    for name in ("setup.cfg", "pyproject.toml", "requirements.txt", "requirements-cpu.txt"):
        shutil.copy(ROOT / name, folder)
    return folder


def make_venv(folder: Path) -> Path:
    venv.create(folder / ".venv", symlinks=True, with_pip=False)
    return folder / ".venv"


def a_file(clone):
    (clone / ".venv").touch()


def an_empty_folder(clone):
    (clone / ".venv").mkdir()


def a_python_that_is_gone(clone):
    python = make_venv(clone) / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python")


def another_python(clone):
    python = make_venv(clone) / "bin" / "python"
    python.unlink()
    python.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.9.1\n[ -z "$2" ]\n')
    python.chmod(0o755)


def somebody_elses(clone):
    make_venv(clone)


def made_in_another_folder(clone):
    (make_venv(clone) / MARKER).write_text("/some/where/else\n")


def without_pip(clone):
    (make_venv(clone) / MARKER).write_text(f"{clone}\n")


def snapshot(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.lstat().st_mtime_ns) for path in (folder / ".venv").rglob("*"))


@pytest.mark.parametrize("script", ["quickstart", "test"])
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (a_file, "its bin/python does not run"),
        (an_empty_folder, "its bin/python does not run"),
        (a_python_that_is_gone, "its bin/python does not run"),
        (another_python, ".venv has Python 3.9.1, 3.11 or 3.12 is needed"),
        (somebody_elses, ".venv was not made by this script"),
        (made_in_another_folder, ".venv was made for /some/where/else"),
        (without_pip, "it has no pip"),
    ],
)
def test_wrong_venv_is_refused_and_left_alone(clone, script, spoil, said):
    spoil(clone)
    before = snapshot(clone)
    done = subprocess.run(
        ["bash", str(clone / "jobs" / f"{script}.sh")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: .venv ") and said in line and "mv .venv .venv.old" in line
    assert snapshot(clone) == before


def test_python_that_was_asked_for_must_be_a_supported_one(clone):
    environment = os.environ | {"PYTHON": "/bin/false"}
    script = ["bash", str(clone / "jobs" / "install.sh")]
    done = subprocess.run(script, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 1 and "PYTHON=/bin/false is not a Python 3.11 or 3.12" in done.stderr
    assert not (clone / ".venv").exists()


def test_missing_compiler_is_told_before_anything_is_downloaded(clone, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "basename", "dirname", "uname", "mkdir", "touch", "rm"):
        (tools / name).symlink_to(shutil.which(name))
    environment = {"PATH": str(tools), "PYTHON": sys.executable}
    script = [shutil.which("bash"), str(clone / "jobs" / "install.sh")]
    done = subprocess.run(script, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 1 and "g++ is missing" in done.stderr.splitlines()[-1]


NVIDIA_SMI = """#!/usr/bin/env bash
case "$*" in
  -L) echo "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-0)"; echo "GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-1)" ;;
  "--query-gpu=driver_version --format=csv,noheader") printf '%s\\n' "$DRIVER" "$DRIVER" ;;
  *) exit 9 ;;
esac
"""


@pytest.fixture
def installed_with(clone, tmp_path):
    """Runs install.sh on a machine whose nvidia-smi tells that driver, as far as making the environment."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "nvidia-smi").write_text(NVIDIA_SMI)
    (tools / "nvidia-smi").chmod(0o755)

    def installed_with(driver: str, **more: str) -> tuple[int, str]:
        path = f"{tools}:{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "DRIVER": driver, "PYTHON": "/bin/false"} | more
        script = ["bash", str(clone / "jobs" / "install.sh")]
        done = subprocess.run(script, capture_output=True, text=True, timeout=60, env=environment)
        return done.returncode, done.stderr

    return installed_with


@pytest.mark.parametrize("driver", ["575.57.08", "550.163.01", "90.1"])
def test_an_nvidia_driver_that_is_too_old_stops_it_before_anything_is_made(clone, installed_with, driver):
    code, said = installed_with(driver)
    (line,) = said.splitlines()
    assert code == 1 and line.startswith(f"error: NVIDIA driver {driver} is too old")
    assert "580 or newer" in line and "ANY_DRIVER=1" in line
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize(
    ("driver", "more", "said"),
    [
        ("580.65.06", {}, "NVIDIA driver 580.65.06: new enough"),
        ("1000.1", {}, "NVIDIA driver 1000.1: new enough"),
        ("575.57.08", {"ANY_DRIVER": "1"}, "NVIDIA driver 575.57.08: older than the 580"),
        ("[N/A]", {}, "does not tell the NVIDIA driver's version; this torch needs 580"),
        ("", {}, "does not tell the NVIDIA driver's version; this torch needs 580"),
    ],
)
def test_the_driver_that_is_found_is_named_and_the_installation_goes_on(installed_with, driver, more, said):
    code, lines = installed_with(driver, **more)
    assert said in lines.splitlines()[0]
    assert code == 1 and "PYTHON=/bin/false is not a Python 3.11 or 3.12" in lines.splitlines()[-1]


def test_a_machine_without_an_nvidia_driver_hears_nothing_of_one(clone):
    script = ["bash", str(clone / "jobs" / "install.sh")]
    environment = os.environ | {"PATH": "/usr/bin:/bin", "PYTHON": "/bin/false"}
    done = subprocess.run(script, capture_output=True, text=True, timeout=60, env=environment)
    assert "NVIDIA" not in done.stderr
