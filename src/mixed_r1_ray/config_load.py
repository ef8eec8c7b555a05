"""From a command line to a checked Config: find the file, merge, check every name, type and bound."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .config import Config
from .config_check import contradictions
from .config_fields import nearest_keys, schema, sections
from .errors import ConfigError

SWITCHES = ("conf", "help", "dry_run")
YAML_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class CommandLine:
    """The words after `python -m mixed_r1_ray.main`, sorted."""

    conf: str | None = None
    help: bool = False
    dry_run: bool = False
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Setting:
    """One value for one key, and where it was said."""

    key: str
    value: Any
    origin: str


@dataclass
class _Merge:
    """A configuration in the making, and who set what last."""

    config: Any = field(default_factory=lambda: OmegaConf.structured(Config))
    origins: dict[str, str] = field(default_factory=dict)


def parse_command_line(argv: list[str]) -> CommandLine:
    """Splits switches from overrides. Raises ConfigError for a word that is not key=value."""
    switches: dict[str, str] = {}
    overrides = []
    for word in argv:
        word = f"reward.{word.removeprefix('rewards.')}" if word.startswith("rewards.") else word
        key, equals, value = word.partition("=")
        if word in ("-h", "--help", "help"):
            switches["help"] = "true"
        elif not equals:
            raise ConfigError(f"command line: '{word}' is not of the form key=value (try help=true)")
        elif key in SWITCHES:
            switches[key] = value
        elif "." in key or key in sections():
            overrides.append(word)
        elif near := get_close_matches(key, SWITCHES, n=1, cutoff=0.5):
            raise ConfigError(f"command line: unknown key {key}; did you mean {near[0]}?")
        else:
            raise _unknown_key(key, "command line")
    return CommandLine(
        conf=switches.get("conf"),
        help=_truth("help", switches),
        dry_run=_truth("dry_run", switches),
        overrides=tuple(overrides),
    )


def load_config(argv: list[str], conf_needed: bool = True) -> Config:
    """Reads `conf=NAME_OR_PATH key=value …` into a checked Config. ConfigError says what is wrong.

    conf_needed: False takes the defaults where no `conf` is given.
    """
    command = parse_command_line(argv)
    if conf_needed and not command.conf:
        raise ConfigError(f"conf=NAME is missing; there are {', '.join(sorted(available_confs()))}")
    merge = _Merge()
    for setting in _file_settings(find_conf(command.conf), chain=()) if command.conf else ():
        _apply(merge, setting)
    for word in command.overrides:
        for setting in _word_settings(word):
            _apply(merge, setting)
    return _finish(merge)


def config_to_yaml(config: Config) -> str:
    """The whole configuration as YAML; `conf=` reads it back to the same Config."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def conf_folders() -> list[Path]:
    """Where names are looked up, nearest first: here, beside the source tree, in the installation."""
    candidates = (
        Path.cwd() / "conf",
        Path(__file__).resolve().parents[2] / "conf",
        Path(sys.prefix) / "share" / "mixed_r1_ray" / "conf",
    )
    return list(dict.fromkeys(folder for folder in candidates if folder.is_dir()))


def available_confs() -> dict[str, Path]:
    """Name -> file of every configuration that a bare name can mean."""
    found: dict[str, Path] = {}
    for folder in conf_folders():
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found


def find_conf(name: str) -> Path:
    """The file that `conf=name` means. Raises ConfigError naming the nearest valid ones."""
    if "/" in name or name.endswith(YAML_SUFFIXES):
        path = Path(name).expanduser()
        if not path.is_file():
            raise ConfigError(f"conf={name}: there is no such file")
        return path
    confs = available_confs()
    if name not in confs:
        near = get_close_matches(name, confs, n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? All: " if near else "there are "
        raise ConfigError(f"conf={name}: unknown; {hint}{', '.join(sorted(confs)) or 'none here'}")
    return confs[name]


def _file_settings(path: Path, chain: tuple[Path, ...]) -> Iterator[Setting]:
    """Settings of a YAML file, those of the file named by its `base` first."""
    if path.resolve() in chain:
        raise ConfigError(f"{path}: base leads back to itself")
    try:
        tree = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {_one_line(error)}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected sections at the top level ({', '.join(sections())})")
    base = tree.pop("base", None)
    if base is not None:
        base_path = path.parent / f"{base}.yaml"
        base_path = base_path if base_path.is_file() else find_conf(str(base))
        yield from _file_settings(base_path, (*chain, path.resolve()))
    yield from _settings(tree, str(path))


def _word_settings(word: str) -> Iterator[Setting]:
    try:
        tree = OmegaConf.to_container(OmegaConf.from_dotlist([word]), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"command line: cannot read '{word}': {_one_line(error)}") from error
    return _settings(tree, "command line")


def _settings(tree: dict, origin: str) -> Iterator[Setting]:
    """Flattens section -> name -> value; a key outside the schema is refused by name."""
    for section, values in tree.items():
        if section not in sections():
            inner = f".{next(iter(values))}" if isinstance(values, dict) and len(values) == 1 else ""
            raise _unknown_key(f"{section}{inner}", origin)
        if values is None:
            continue  # a section whose lines are all commented out
        if not isinstance(values, dict):
            raise ConfigError(
                f"{origin}: {section} is a section; give one of its keys, e.g. {_first_key(section)}"
            )
        for name, value in values.items():
            if f"{section}.{name}" not in schema():
                raise _unknown_key(f"{section}.{name}", origin)
            yield Setting(f"{section}.{name}", value, origin)


def _apply(merge: _Merge, setting: Setting) -> None:
    expected = schema()[setting.key].describe()
    try:
        named = isinstance(setting.value, dict)  # of a key with names of its own: others that were set stay
        OmegaConf.update(merge.config, setting.key, setting.value, merge=named)
    except OmegaConfBaseException as error:
        given = "null" if setting.value is None else f"{setting.value!r} ({type(setting.value).__name__})"
        raise ConfigError(f"{setting.origin}: {setting.key} must be {expected}, not {given}") from error
    merge.origins[setting.key] = setting.origin


def _finish(merge: _Merge) -> Config:
    """Resolves interpolations and checks bounds and contradictions; all problems in one message."""
    try:
        config = OmegaConf.to_object(merge.config)
    except OmegaConfBaseException as error:
        raise ConfigError(
            f"{getattr(error, 'full_key', None) or 'configuration'}: {_one_line(error)}"
        ) from error
    config.reward.custom = _absolute(config.reward.custom)
    problems = [
        f"{merge.origins.get(key, 'default')}: {key} must be {spec.describe()}, not {value}"
        for key, spec in schema().items()
        for value in [_value(config, key)]
        if spec.out_of_bounds(value)
    ]
    problems = problems or contradictions(config)
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def _absolute(function: str | None) -> str | None:
    """`path.py:function` with its whole path, for workers stand in other folders; names as they are."""
    path, colon, name = (function or "").rpartition(":")
    if not colon or not path.endswith(".py"):
        return function
    return f"{os.path.abspath(os.path.expanduser(path))}:{name}"


def _value(config: Config, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


def _unknown_key(key: str, origin: str) -> ConfigError:
    near = nearest_keys(key)
    section = key.partition(".")[0]
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    elif section in sections():
        hint = (
            f"{section} has {', '.join(k.partition('.')[2] for k in schema() if k.startswith(section + '.'))}"
        )
    else:
        hint = f"sections are {', '.join(sections())} (help=true lists all keys)"
    return ConfigError(f"{origin}: unknown key {key}; {hint}")


def _first_key(section: str) -> str:
    return next(key for key in schema() if key.startswith(f"{section}."))


def _truth(name: str, switches: dict[str, str]) -> bool:
    value = switches.get(name, "false").lower()
    if value not in ("true", "false"):
        raise ConfigError(f"command line: {name} must be true or false, not '{value}'")
    return value == "true"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).partition("full_key:")[0].split())
