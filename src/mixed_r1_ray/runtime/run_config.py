"""A run's config.yaml: written so that it can be run again, and compared when the run is continued."""

from __future__ import annotations

import dataclasses
import fnmatch
import time
from pathlib import Path
from typing import Any

from mixed_r1_ray.config import Config
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.redaction import redact
from mixed_r1_ray.runtime import atomic, provenance

HEADER = "# A run of mixed_r1_ray. Run it again with `python -m mixed_r1_ray.main conf=<this file>`."

#: Keys that may differ when a run is continued: none of them changes what is learned from which data.
MAY_CHANGE = (
    "run.max_steps",
    "run.resume",
    "run.name",
    "run.dir",
    "run.checkpoint_every",
    "run.keep_checkpoints",
    "run.keep_best",
    "run.save_rollouts_every",
    "eval.every",
    "tracking.*",
    "cluster.*",
    "guard.*",
    "tiny.cache_dir",
    "*.timeout_s",
    "*.start_timeout_s",
    "*.cpus_per_worker",
    "*.threads",
    "data.num_workers",
    "data.cache_dir",
    "reward.num_workers",
    "reward.batch_groups",
    "rollout.num_workers",
    "learner.num_workers",
    "rollout.kv_cache_gib",
    "rollout.gpu_memory_fraction",
    "rollout.max_concurrent_sequences",
    "data.max_bad_fraction",
    "reward.max_unscored_fraction",
)


def check_same_run(path: Path, config: Config) -> list[str]:
    """Raises UserError where a key that makes another run was changed; warns of other package versions."""
    config_file = path / "config.yaml"
    saved, environment = read_config(config_file)
    before = _flatten(dataclasses.asdict(Config())) | _flatten(saved)
    now = _flatten(redact(dataclasses.asdict(config)))  # as it was written
    absent = object()
    changed = [
        key
        for key in sorted(before.keys() | now.keys())
        if before.get(key, absent) != now.get(key, absent)
        and not any(fnmatch.fnmatch(key, pattern) for pattern in MAY_CHANGE)
    ]
    if changed:
        lines = "\n".join(
            f"  {key}: {before.get(key, '(no such key)')} -> {now.get(key, '(no such key)')}"
            for key in changed
        )
        raise UserError(
            f"run.resume=auto cannot continue {path} with a configuration that makes a different run:\n"
            f"{lines}\nSet these back (see {config_file}), or choose another run.name"
        )
    versions = environment.get("packages", {})
    return [
        f"continued with {package} {version} where the run began with {versions[package]}"
        for package, version in provenance.package_versions().items()
        if package in versions and versions[package] != version
    ]


def _flatten(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads a run's config.yaml: the configuration, and the environment in its comment lines."""
    from omegaconf import OmegaConf

    text = path.read_text(encoding="utf-8")
    comments = [line[2:] for line in text.splitlines()[1:] if line.startswith("# ")]
    try:
        saved = OmegaConf.to_container(OmegaConf.create(text))
        environment = OmegaConf.to_container(OmegaConf.create("\n".join(comments)))
    except Exception as error:  # the YAML parser's many kinds
        raise UserError(
            f"{path} cannot be read as YAML ({error}); restore it or choose another run.name"
        ) from error
    return saved, environment


def write_config(path: Path, config: Config, resumed: bool) -> None:
    """Writes the resolved configuration as YAML that can be run, the environment in comments above it.

    Secrets are blotted out: a run that has some in its configuration cannot be run again from this file alone.
    """
    from omegaconf import OmegaConf

    from mixed_r1_ray.config_load import config_to_yaml

    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    environment: dict[str, Any] = {
        "started": now,
        "git_revision": provenance.git_revision(),
        "packages": provenance.package_versions(),
    }
    if resumed:
        before = read_config(path / "config.yaml")[1]
        environment["started"] = before.get("started", now)
        environment["continued"] = [*before.get("continued", []), now]
    comments = OmegaConf.to_yaml(OmegaConf.create(environment)).splitlines()
    header = [HEADER, *(f"# {line}" for line in comments), ""]
    atomic.write_text(path / "config.yaml", "\n".join([*header, redact(config_to_yaml(config))]))
