"""A run's config.yaml: written so that it can be run again, and compared when the run is continued."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from mixed_r1_ray.config import Config
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.redaction import redact
from mixed_r1_ray.runtime import atomic, provenance
from mixed_r1_ray.runtime.resume_keys import MAY_CHANGE
from mixed_r1_ray.schedules import lengths_in_use

HEADER = "# A run of mixed_r1_ray. Run it again with `python -m mixed_r1_ray.main conf=<this file>`."


def check_same_run(path: Path, config: Config) -> list[str]:
    """Raises UserError where a key that makes another run was changed; returns what else was, package versions too.

    Lengths of schedules count as what they come to: without keys of their own they follow `run.max_steps`.
    """
    config_file = path / "config.yaml"
    saved, environment = read_config(config_file)
    before = _flatten(dataclasses.asdict(Config())) | _flatten(saved)
    now = _flatten(dataclasses.asdict(redact(config)))  # as it was written
    lengths = lengths_in_use(_as_config(before)), lengths_in_use(config)
    changed = _changes(before | lengths[0], now | lengths[1])
    another = [key for key in changed if key not in MAY_CHANGE]
    if another:
        lines = [f"  {changed[key]}" for key in another]
        lines += [f"  ({_of_the_run(key, lengths[0][key])})" for key in another if key in lengths[0]]
        raise UserError(
            f"run.resume=auto cannot continue {path} with a configuration that makes a different run:\n"
            + "\n".join(lines)
            + f"\nSet these back (see {config_file}), or choose another run.name"
        )
    versions = environment.get("packages", {})
    told = [f"continued with {change}" for key, change in changed.items() if key != "run.resume"]
    if "run.max_steps" in changed and config.algo.max_staleness:
        told.append(
            f"algo.max_staleness {config.algo.max_staleness}: what a run that had reached its end generates next comes "
            "from newer weights than without a stop"
        )
    return told + [
        f"continued with {package} {version} where the run began with {versions[package]}"
        for package, version in provenance.package_versions().items()
        if package in versions and versions[package] != version
    ]


def _changes(before: dict[str, Any], now: dict[str, Any]) -> dict[str, str]:
    """`key: old -> new` by key, of those that differ."""
    absent = "(no such key)"
    pairs = {key: (before.get(key, absent), now.get(key, absent)) for key in sorted(before.keys() | now.keys())}
    return {key: f"{key}: {_said(old)} -> {_said(new)}" for key, (old, new) in pairs.items() if old != new}


def _said(value: Any) -> Any:
    return "null" if value is None else value


def _of_the_run(key: str, steps: int) -> str:
    return f"without a value {key} follows run.max_steps; {key}={steps} keeps it as it was"


def _as_config(flat: dict[str, Any]) -> Config:
    """The configuration of flattened keys; those that the schema lacks are left out, data.weights too."""
    config = Config()
    for section in dataclasses.fields(config):
        values = getattr(config, section.name)
        for field in dataclasses.fields(values):
            key = f"{section.name}.{field.name}"
            setattr(values, field.name, flat.get(key, getattr(values, field.name)))
    return config


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
    atomic.write_text(path / "config.yaml", "\n".join([*header, config_to_yaml(redact(config))]))
