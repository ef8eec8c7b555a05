"""The recipe of a mixture: what `conf/data/*.yaml` may say, with its documentation, and reading it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from mixed_r1_ray.config import Count, Whole
from mixed_r1_ray.config_fields import describe_type
from mixed_r1_ray.config_load import YAML_SUFFIXES, conf_folders
from mixed_r1_ray.data.quotas import Stratum, quota_faults
from mixed_r1_ray.errors import ConfigError
from mixed_r1_ray.types import REWARD_TYPES


@dataclass
class SourceRecipe:
    #: Records of this source: a number, or a share of its type (0.25); null shares what the others leave.
    quota: int | float | None = None
    #: Licence of the data and where it is published; the data card says both.
    license: str = MISSING
    url: str = ""
    #: Why the quota is what it is, or anything else the data card should say.
    note: str = ""


@dataclass
class TypeRecipe:
    #: Records of this reward type: a whole number, or a share of `size`; null shares what the others leave.
    quota: int | float | None = None
    #: Least and most `pass_rate` in a record's `meta`; null takes all.
    pass_rate: list[float] | None = None
    #: Its sources, by the name that stands in the records' `source`.
    sources: dict[str, SourceRecipe] = field(default_factory=dict)


@dataclass
class Recipe:
    #: Name of the mixture, and what the data card says about it first.
    name: str = MISSING
    description: str = ""
    #: Records of the training split.
    size: Count = MISSING
    #: Records of a held-out split, in the proportions of the mixture, that share no picture with training.
    held_out: Whole = 0
    #: Decides which records are drawn. The order of files and folders does not.
    seed: int = 0
    #: A source with too few records: others of its type fill up, then other types; or nothing is written.
    shortfall: Literal["redistribute", "refuse"] = "redistribute"
    #: Records without a pass rate, in types that have a band.
    without_pass_rate: Literal["drop", "keep"] = "drop"
    #: Records of one Parquet file.
    shard_records: Count = 2048
    #: Reward types; those not named are left out.
    types: dict[str, TypeRecipe] = field(default_factory=dict)

    def strata(self) -> Iterator[tuple[Stratum, SourceRecipe]]:
        """Every (reward type, source) that is asked for, in the recipe's order."""
        for reward_type, of_type in self.types.items():
            for source, recipe in of_type.sources.items():
                yield (reward_type, source), recipe


def load_recipe(name: str) -> Recipe:
    """The recipe in a YAML file, or of a name in conf/data. ConfigError says what is wrong, and where."""
    path = _find(name)
    try:
        given = OmegaConf.load(path)
        if not OmegaConf.is_dict(given):
            raise ConfigError(f"{path}: expected keys at the top level ({', '.join(_keys(Recipe))})")
        recipe = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Recipe), given))
    except ConfigKeyError as error:
        raise ConfigError(f"{path}: {_unknown(error)}") from error
    except MissingMandatoryValue as error:
        raise ConfigError(f"{path}: {error.full_key} is missing") from error
    except OmegaConfBaseException as error:
        reason = " ".join(str(error).partition("full_key:")[0].split())
        raise ConfigError(f"{path}: {error.full_key or 'recipe'}: {reason}") from error
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    if faults := [*_faults(recipe)]:
        raise ConfigError("\n".join(f"{path}: {fault}" for fault in faults))
    return recipe


def recipe_to_yaml(recipe: Recipe) -> str:
    """The whole recipe, defaults included; `load_recipe` reads it back to the same."""
    return OmegaConf.to_yaml(OmegaConf.structured(recipe))


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


def _faults(recipe: Recipe) -> Iterator[str]:
    for key, annotation in get_type_hints(Recipe, include_extras=True).items():
        value = getattr(recipe, key)
        if get_origin(annotation) is Annotated and not get_args(annotation)[1].allow(value):
            yield f"{key} must be {describe_type(annotation)}, not {value}"
    if not recipe.types:
        yield "types names no reward type, so nothing would be drawn"
    for name, of_type in recipe.types.items():
        if name not in REWARD_TYPES:
            yield f"types.{name}: is none of {', '.join(REWARD_TYPES)}"
        if not of_type.sources:
            yield f"types.{name}.sources names no source"
        if of_type.pass_rate is not None and not _is_band(of_type.pass_rate):
            yield f"types.{name}.pass_rate must be [least, most] within 0 to 1, not {of_type.pass_rate}"
    yield from quota_faults({f"types.{name}": of_type.quota for name, of_type in recipe.types.items()})
    yield from quota_faults(
        {f"types.{kind}.sources.{source}": recipe.quota for (kind, source), recipe in recipe.strata()}
    )


def _is_band(band: list[float]) -> bool:
    return len(band) == 2 and 0 <= band[0] <= band[1] <= 1


def _unknown(error: ConfigKeyError) -> str:
    parent, _, key = str(error.full_key).rpartition(".")
    owner = error.object_type if is_dataclass(error.object_type) else Recipe
    near = get_close_matches(key, _keys(owner), n=1)
    hint = f"did you mean {near[0]}?" if near else f"{parent or 'a recipe'} has {', '.join(_keys(owner))}"
    return f"unknown key {error.full_key}; {hint}"


def _keys(owner: Any) -> list[str]:
    return [one.name for one in fields(owner)]
