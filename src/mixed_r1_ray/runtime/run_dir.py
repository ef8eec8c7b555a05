"""The folder of a run: what lies where, and whether a run may begin, go on or start over in it."""

from __future__ import annotations

import fnmatch
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from mixed_r1_ray.config import Config
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.runtime.run_config import HEADER, check_same_run, write_config
from mixed_r1_ray.runtime.run_lock import RunLock, check_unlocked

#: All that a run writes below its folder; `overwrite` deletes these and nothing else. config.yaml goes last:
#: it marks the folder as ours, so an interrupted clearing can be taken up again.
OWN_FILES = (
    "metrics.jsonl",
    "warnings.jsonl",
    "report.html",
    "wandb_run_id",
    "rollouts/step_*.parquet",
    "evals/step_*.parquet",
    "evals/pictures/*.png",
    "stalls/*",
    "checkpoints/latest",
    "checkpoints/step_*",
    "checkpoints/.step_*",
    "wandb/*",
    ".*.tmp",
    "*/.*.tmp",
    "config.yaml",
)
OWN_FOLDERS = ("rollouts", "evals/pictures", "evals", "stalls", "checkpoints", "wandb")


@dataclass(frozen=True)
class RunFiles:
    """What lies where below a run's folder."""

    path: Path

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def warnings_file(self) -> Path:
        return self.path / "warnings.jsonl"

    @property
    def rollouts(self) -> Path:
        return self.path / "rollouts"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def evals(self) -> Path:
        return self.path / "evals"

    @property
    def pictures(self) -> Path:
        return self.path / "evals" / "pictures"

    @property
    def report_file(self) -> Path:
        return self.path / "report.html"


@dataclass(frozen=True)
class RunDir(RunFiles):
    """An open run folder, locked until `close`. `resumed`: it already held steps of this very run."""

    resumed: bool
    warnings: tuple[str, ...]
    lock: RunLock

    def close(self) -> None:
        """Lets another driver have the folder."""
        self.lock.release()

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_run_dir(config: Config) -> RunDir:
    """Makes, continues or clears `run.dir`/`run.name` as `run.resume` says, locks it and writes config.yaml.

    A folder whose run never finished anything (no metrics, checkpoint or evaluation) counts as fresh: a run
    that stopped on a wrong setting can be started again as it is. Raises UserError where the folder cannot be
    used.
    """
    path = _folder_of(config)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = RunLock(path / "run.lock")
    except OSError as error:
        raise UserError(
            f"run folder {path} cannot be written ({error.strerror}); choose another run.dir"
        ) from error
    try:
        resumed, warnings = _continues(path, config)
        if not resumed:
            _clear(path)
        write_config(path, config, resumed)
    except BaseException:
        lock.release()
        raise
    return RunDir(path, resumed, tuple(warnings), lock)


def check_run_dir(config: Config) -> None:
    """Raises UserError where `open_run_dir` would. Makes, changes and locks nothing."""
    path = _folder_of(config)
    if path.is_dir():
        check_unlocked(path / "run.lock")
        _continues(path, config)
    if not os.access(_nearest(path), os.W_OK):
        raise UserError(f"run folder {path} cannot be written (no right to {_nearest(path)}); choose another run.dir")


def _folder_of(config: Config) -> Path:
    path = Path(config.run.dir) / config.run.name
    if not _nearest(path).is_dir():
        raise UserError(f"run folder {path}: {_nearest(path)} is a file; choose another run.name or run.dir")
    return path


def _nearest(path: Path) -> Path:
    """What of a path is there: itself, or the first folder above it."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def _continues(path: Path, config: Config) -> tuple[bool, list[str]]:
    """Whether `run.resume` continues what the folder holds, or starts afresh in it; and warnings."""
    resume = config.run.resume
    if resume not in ("never", "auto", "overwrite"):
        raise UserError(f"run.resume={resume} is not known; use never, auto or overwrite")
    _refuse_foreign(path)
    if resume == "overwrite" or not _has_progress(path):
        return False, []
    if resume == "never":
        raise UserError(
            f"run folder {path} already holds a run ({_describe(path)}). Continue it with run.resume=auto, "
            f"clear it with run.resume=overwrite, or choose another run.name"
        )
    return True, check_same_run(path, config)


def _refuse_foreign(path: Path) -> None:
    config_file = path / "config.yaml"
    if config_file.is_file():
        with config_file.open(encoding="utf-8", errors="replace") as file:
            if file.readline().rstrip("\n") == HEADER:
                return
    others = sorted(entry.name for entry in path.iterdir() if entry.name != "run.lock")
    others = [name for name in others if not fnmatch.fnmatch(name, ".*.tmp")]
    if others:
        named = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise UserError(
            f"run folder {path} holds files that are not a run's ({named}); choose another run.name or "
            f"run.dir, or move them away"
        )


def _has_progress(path: Path) -> bool:
    metrics = path / "metrics.jsonl"
    return (
        (metrics.is_file() and metrics.stat().st_size > 0)
        or any(path.glob("checkpoints/step_*"))
        or any(path.glob("evals/step_*.parquet"))
    )


def _describe(path: Path) -> str:
    steps = 0
    metrics = path / "metrics.jsonl"
    if metrics.is_file():
        with metrics.open("rb") as file:
            steps = sum(1 for _ in file)
    checkpoints = sorted(entry.name for entry in path.glob("checkpoints/step_*"))
    last = f"last checkpoint {checkpoints[-1]}" if checkpoints else "no checkpoint"
    return f"{steps} lines of metrics, {last}"


def _clear(path: Path) -> None:
    for pattern in OWN_FILES:
        for entry in path.glob(pattern):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    for name in OWN_FOLDERS:
        folder = path / name
        if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()
