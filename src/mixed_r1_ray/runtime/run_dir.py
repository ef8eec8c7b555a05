"""The folder of a run: who may use it, what lies where, and which configuration made it."""

from __future__ import annotations

import dataclasses
import fcntl
import fnmatch
import json
import os
import shutil
import socket
import time
from pathlib import Path
from typing import Any

from mixed_r1_ray.config import Config
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.runtime import atomic, provenance

HEADER = "# A run of mixed_r1_ray. Run it again with `python -m mixed_r1_ray.main conf=<this file>`."

#: Keys that may differ when a run is continued: none of them changes what is learned from which data.
MAY_CHANGE = (
    "run.max_steps", "run.resume", "run.name", "run.dir", "run.checkpoint_every", "run.keep_checkpoints",
    "run.save_rollouts_every", "eval.every", "tracking.*", "cluster.*", "guard.*", "tiny.cache_dir",
    "*.timeout_s", "*.start_timeout_s", "*.cpus_per_worker", "*.threads", "data.num_workers", "reward.num_workers",
    "rollout.num_workers", "rollout.kv_cache_gib", "rollout.gpu_memory_fraction", "rollout.max_concurrent_sequences",
    "data.max_bad_fraction", "reward.max_unscored_fraction",
)

#: All that a run writes below its folder; `overwrite` deletes these and nothing else. config.yaml goes last: it marks
#: the folder as ours, so an interrupted clearing can be taken up again.
OWN_FILES = ("metrics.jsonl", "warnings.jsonl", "report.html", "wandb_run_id", "rollouts/step_*.parquet",
             "evals/step_*.parquet", "evals/pictures/*.png", "checkpoints/latest", "checkpoints/step_*",
             "checkpoints/.step_*", "wandb/*", ".*.tmp", "*/.*.tmp", "config.yaml")
OWN_FOLDERS = ("rollouts", "evals/pictures", "evals", "checkpoints", "wandb")


@dataclasses.dataclass(frozen=True)
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


@dataclasses.dataclass(frozen=True)
class RunDir(RunFiles):
    """An open run folder, locked until `close`. `resumed`: it already held steps of this very run."""

    resumed: bool
    warnings: tuple[str, ...]
    lock: RunLock

    def close(self) -> None:
        """Let another driver have the folder."""
        self.lock.release()

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_run_dir(config: Config) -> RunDir:
    """Make, continue or clear `run.dir`/`run.name` as `run.resume` says, lock it and write config.yaml.

    A folder whose run never finished anything (no metrics, checkpoint or evaluation) counts as fresh: a run that
    stopped on a wrong setting can be started again as it is. Raises UserError where the folder cannot be used.
    """
    path = Path(config.run.dir) / config.run.name
    if path.exists() and not path.is_dir():
        raise UserError(f"run folder {path} is a file; choose another run.name or run.dir")
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = RunLock(path / "run.lock")
    except OSError as error:
        raise UserError(f"run folder {path} cannot be written ({error.strerror}); choose another run.dir") from error
    try:
        resumed, warnings = _settle(path, config)
        _write_config(path, config, resumed)
    except BaseException:
        lock.release()
        raise
    return RunDir(path, resumed, tuple(warnings), lock)


def _settle(path: Path, config: Config) -> tuple[bool, list[str]]:
    """Bring the folder into the state `run.resume` asks for; return whether a run continues, and warnings."""
    resume = config.run.resume
    if resume not in ("never", "auto", "overwrite"):
        raise UserError(f"run.resume={resume} is not known; use never, auto or overwrite")
    _refuse_foreign(path)
    if resume == "overwrite" or not _has_progress(path):
        _clear(path)
        return False, []
    if resume == "never":
        raise UserError(
            f"run folder {path} already holds a run ({_describe(path)}). Continue it with run.resume=auto, clear it "
            f"with run.resume=overwrite, or choose another run.name")
    return True, _check_same_run(path, config)


def _refuse_foreign(path: Path) -> None:
    config_file = path / "config.yaml"
    if config_file.is_file():
        with config_file.open(encoding="utf-8", errors="replace") as file:
            if file.readline().startswith("# A run of mixed_r1_ray."):
                return
    others = sorted(entry.name for entry in path.iterdir() if entry.name != "run.lock")
    others = [name for name in others if not fnmatch.fnmatch(name, ".*.tmp")]
    if others:
        named = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise UserError(f"run folder {path} holds files that are not a run's ({named}); choose another run.name or "
                        f"run.dir, or move them away")


def _has_progress(path: Path) -> bool:
    metrics = path / "metrics.jsonl"
    return ((metrics.is_file() and metrics.stat().st_size > 0) or any(path.glob("checkpoints/step_*"))
            or any(path.glob("evals/step_*.parquet")))


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


def _check_same_run(path: Path, config: Config) -> list[str]:
    """Raise where a key that makes a different run was changed; warn of other package versions."""
    config_file = path / "config.yaml"
    saved, environment = read_config(config_file)
    before = _flatten(dataclasses.asdict(Config())) | _flatten(saved)
    now = _flatten(dataclasses.asdict(config))
    absent = object()
    changed = [key for key in sorted(before.keys() | now.keys())
               if before.get(key, absent) != now.get(key, absent)
               and not any(fnmatch.fnmatch(key, pattern) for pattern in MAY_CHANGE)]
    if changed:
        lines = "\n".join(f"  {key}: {before.get(key, '(no such key)')} -> {now.get(key, '(no such key)')}"
                          for key in changed)
        raise UserError(f"run.resume=auto cannot continue {path} with a configuration that makes a different run:\n"
                        f"{lines}\nSet these back (see {config_file}), or choose another run.name")
    versions = environment.get("packages", {})
    return [f"continued with {package} {version} where the run began with {versions[package]}"
            for package, version in provenance.package_versions().items()
            if package in versions and versions[package] != version]


def _flatten(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a run's config.yaml: the configuration, and the environment in its comment lines."""
    from omegaconf import OmegaConf

    text = path.read_text(encoding="utf-8")
    comments = [line[2:] for line in text.splitlines()[1:] if line.startswith("# ")]
    try:
        saved = OmegaConf.to_container(OmegaConf.create(text))
        environment = OmegaConf.to_container(OmegaConf.create("\n".join(comments)))
    except Exception as error:  # the YAML parser's many kinds
        raise UserError(f"{path} cannot be read as YAML ({error}); restore it or choose another run.name") from error
    return saved, environment


def _write_config(path: Path, config: Config, resumed: bool) -> None:
    """Write the resolved configuration as YAML that can be run again; the environment stands in comments above it."""
    from omegaconf import OmegaConf

    from mixed_r1_ray.config_load import config_to_yaml

    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    environment: dict[str, Any] = {"started": now, "git_revision": provenance.git_revision(),
                                   "packages": provenance.package_versions()}
    if resumed:
        before = read_config(path / "config.yaml")[1]
        environment["started"] = before.get("started", now)
        environment["continued"] = [*before.get("continued", []), now]
    comments = OmegaConf.to_yaml(OmegaConf.create(environment)).splitlines()
    header = [HEADER, *(f"# {line}" for line in comments), ""]
    atomic.write_text(path / "config.yaml", "\n".join([*header, config_to_yaml(config)]))


class RunLock:
    """One driver a folder: an advisory lock on a file that says who holds it.

    The kernel frees it when its process ends in whatever way, so there is no stale lock to clear after a crash, and a
    process id that was given out again cannot be mistaken for the owner.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = self._acquire()
        self._file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": int(time.time())}))
        self._file.flush()

    def _acquire(self):
        while True:
            file = self.path.open("a+", encoding="utf-8")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                owner = _owner(file.read())
                file.close()
                raise UserError(f"run folder {self.path.parent} is in use by {owner}. Wait for it or end it, or choose "
                                f"another run.name") from None
            # A former owner may have unlinked the file between our opening and our locking it.
            if self.path.exists() and os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                file.truncate(0)
                return file
            file.close()

    def release(self) -> None:
        """Free the folder; a second call does nothing."""
        if not self._file.closed:
            self.path.unlink(missing_ok=True)
            self._file.close()


def _owner(text: str) -> str:
    try:
        owner = json.loads(text)
        return f"process {owner['pid']} on {owner['host']}"
    except (ValueError, KeyError, TypeError):
        return "another driver"
