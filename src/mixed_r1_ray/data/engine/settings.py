"""What `select` may be told: the keys of conf/data/select*.yaml, with their documentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from omegaconf import OmegaConf

from mixed_r1_ray.config_types import Bounds, Count, Fraction
from mixed_r1_ray.data.engine.hamming import MOST_DISTANCE
from mixed_r1_ray.data.yaml_schema import is_band, load_yaml
from mixed_r1_ray.types import REWARD_TYPES

Distance = Annotated[int, Bounds(least=0, most=MOST_DISTANCE)]


@dataclass
class PictureSettings:
    #: Most differing bits of two 64-bit perceptual hashes.
    distance: Distance = 6
    #: Most difference of brightness, of 255, at any place of their 16 x 16 copies; of colour, twice that.
    pixel_difference: Annotated[float, Bounds(least=0, most=255)] = 16


@dataclass
class DuplicateSettings:
    #: Leave out records whose pictures' bytes and question are another's.
    exact: bool = True
    #: Leave out records whose pictures, question and answer are near another's.
    near: bool = True
    #: Least similarity of two spellings of one word; 1: questions must have the same words.
    word_similarity: Fraction = 0.85
    #: Captions of near pictures are duplicates, whatever they are asked and however described.
    captions_by_picture: bool = True


@dataclass
class ContaminationSettings:
    #: Leave out what resembles a record of the sets that --against names.
    enabled: bool = True
    #: What makes it one: a near picture alone, or a near picture and the same question.
    match: Literal["picture", "picture_and_question"] = "picture"
    #: A question of so many words, with its answer, is enough, however the picture was redrawn ...
    question_words: Count = 10
    #: ... unless it is a template: asked more often than this of either set's records.
    question_repeats: Count = 3


@dataclass
class Band:
    #: Least and most mean task reward, ends included.
    mean: list[float] = field(default_factory=lambda: [0.1, 0.9])
    #: Least standard deviation of the task reward over a prompt's answers.
    min_std: Fraction = 0.0


def _bands() -> dict[str, Band]:
    graded = {"iou": Band([0.05, 0.95], 0.05), "open_ended": Band([0.05, 0.95], 0.02)}
    return {kind: graded.get(kind, Band()) for kind in REWARD_TYPES}


@dataclass
class DifficultySettings:
    #: Have a model answer each record.
    enabled: bool = True
    #: Run configuration whose model, sampling and rewards are used (its keys can be given on the command line).
    conf: str = "internvl_8b"
    #: Answers a record.
    samples: Annotated[int, Bounds(least=2)] = 8
    #: Rows of an input file that are answered, and kept on disk, together.
    chunk_rows: Count = 128
    #: Which records are kept, by reward type.
    bands: dict[str, Band] = field(default_factory=_bands)


@dataclass
class SelectSettings:
    #: When two pictures count as the same one.
    pictures: PictureSettings = field(default_factory=PictureSettings)
    duplicates: DuplicateSettings = field(default_factory=DuplicateSettings)
    contamination: ContaminationSettings = field(default_factory=ContaminationSettings)
    difficulty: DifficultySettings = field(default_factory=DifficultySettings)
    #: Records of one Parquet file that is written.
    shard_records: Count = 2048


def load_settings(name: str, overrides: Sequence[str] = ()) -> SelectSettings:
    """The settings in a YAML file, or of a name in conf/data. ConfigError says what is wrong, and where."""
    return load_yaml(name, SelectSettings, "a selection", _faults, overrides)


def settings_to_yaml(settings: SelectSettings) -> str:
    """All of them, defaults included; `load_settings` reads them back to the same."""
    return OmegaConf.to_yaml(OmegaConf.structured(settings))


def _faults(settings: SelectSettings) -> Iterator[str]:
    for kind, band in settings.difficulty.bands.items():
        if kind not in REWARD_TYPES:
            yield f"difficulty.bands.{kind}: is none of {', '.join(REWARD_TYPES)}"
        if not is_band(band.mean):
            yield f"difficulty.bands.{kind}.mean must be [least, most] within 0 to 1, not {band.mean}"
