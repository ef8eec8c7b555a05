"""YAML files in conf/data, read into dataclasses: every key known, every value of its type, or a ConfigError."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from mixed_r1_ray.config_fields import describe_type
from mixed_r1_ray.config_load import YAML_SUFFIXES, conf_folders
from mixed_r1_ray.errors import ConfigError

Schema = TypeVar("Schema")


def load_yaml(
    name: str,
    schema: type[Schema],
    what: str,
    faults: Callable[[Schema], Iterator[str]],
    overrides: Sequence[str] = (),
) -> Schema:
    """The `schema` in a YAML file, or of a name in conf/data; `overrides` are `key=value`, and win.

    what: the schema in words, for messages. faults: what types and bounds cannot say. Raises ConfigError.
    """
    path = _find(name)
    try:
        given = OmegaConf.load(path)
        if not OmegaConf.is_dict(given):
            raise ConfigError(f"{path}: expected keys at the top level ({', '.join(_keys(schema))})")
        words = OmegaConf.from_dotlist(list(overrides))
        settings = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), given, words))
    except ConfigKeyError as error:
        raise ConfigError(f"{path}: {_unknown(error, schema, what)}") from error
    except MissingMandatoryValue as error:
        raise ConfigError(f"{path}: {error.full_key} is missing") from error
    except OmegaConfBaseException as error:
        reason = " ".join(str(error).partition("full_key:")[0].split())
        raise ConfigError(f"{path}: {error.full_key or what}: {reason}") from error
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    if found := [*out_of_bounds(settings), *faults(settings)]:
        raise ConfigError("\n".join(f"{path}: {fault}" for fault in found))
    return settings


def out_of_bounds(settings: Any, prefix: str = "") -> Iterator[str]:
    """Values outside the bounds that their fields' types name, sections within sections included."""
    for key, annotation in get_type_hints(type(settings), include_extras=True).items():
        value = getattr(settings, key)
        if is_dataclass(value):
            yield from out_of_bounds(value, f"{prefix}{key}.")
        elif isinstance(value, dict):
            for name, inner in value.items():
                if is_dataclass(inner):
                    yield from out_of_bounds(inner, f"{prefix}{key}.{name}.")
        elif get_origin(annotation) is Annotated and not get_args(annotation)[1].allow(value):
            yield f"{prefix}{key} must be {describe_type(annotation)}, not {value}"


def is_band(band: Sequence[float]) -> bool:
    """Whether it is [least, most] within 0 to 1."""
    return len(band) == 2 and 0 <= band[0] <= band[1] <= 1


def _find(name: str) -> Path:
    if "/" in name or name.endswith(YAML_SUFFIXES):
        path = Path(name).expanduser()
        if not path.is_file():
            raise ConfigError(f"--conf {name}: there is no such file")
        return path
    found = {path.stem: path for folder in reversed(conf_folders()) for path in folder.glob("data/*.yaml")}
    if name not in found:
        raise ConfigError(f"--conf {name}: unknown; there are {', '.join(sorted(found)) or 'none here'}")
    return found[name]


def _unknown(error: ConfigKeyError, schema: type, what: str) -> str:
    parent, _, key = str(error.full_key).rpartition(".")
    owner = error.object_type if is_dataclass(error.object_type) else schema
    near = get_close_matches(key, _keys(owner), n=1)
    hint = f"did you mean {near[0]}?" if near else f"{parent or what} has {', '.join(_keys(owner))}"
    return f"unknown key {error.full_key}; {hint}"


def _keys(owner: Any) -> list[str]:
    return [one.name for one in fields(owner)]
