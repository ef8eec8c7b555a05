"""The recipe of a mixture: what `conf/data/*.yaml` may say, with its documentation, and reading it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from omegaconf import MISSING, OmegaConf

from mixed_r1_ray.config import Count, Whole
from mixed_r1_ray.data.quotas import Stratum, quota_faults
from mixed_r1_ray.data.yaml_schema import is_band, load_yaml
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
    return load_yaml(name, Recipe, "a recipe", _faults)


def recipe_to_yaml(recipe: Recipe) -> str:
    """The whole recipe, defaults included; `load_recipe` reads it back to the same."""
    return OmegaConf.to_yaml(OmegaConf.structured(recipe))


def _faults(recipe: Recipe) -> Iterator[str]:
    if not recipe.types:
        yield "types names no reward type, so nothing would be drawn"
    for name, of_type in recipe.types.items():
        if name not in REWARD_TYPES:
            yield f"types.{name}: is none of {', '.join(REWARD_TYPES)}"
        if not of_type.sources:
            yield f"types.{name}.sources names no source"
        if of_type.pass_rate is not None and not is_band(of_type.pass_rate):
            yield f"types.{name}.pass_rate must be [least, most] within 0 to 1, not {of_type.pass_rate}"
    yield from quota_faults({f"types.{name}": of_type.quota for name, of_type in recipe.types.items()})
    yield from quota_faults(
        {f"types.{kind}.sources.{source}": recipe.quota for (kind, source), recipe in recipe.strata()}
    )
