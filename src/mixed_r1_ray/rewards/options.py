"""The settings of the rewards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixed_r1_ray.config import RewardConfig


@dataclass(frozen=True, slots=True)
class RewardOptions:
    """How rewards are computed and joined: total = task_weight * task + format_weight * format."""

    task_weight: float = 1.0
    format_weight: float = 0.5
    chart_mode: str = "relaxed"  # relaxed | exact | edit_distance
    chart_ordered: bool = False  # lists: the gold's order counts
    iou_mode: str = "continuous"  # continuous | threshold | dynamic
    iou_threshold: float = 0.5
    counting_mode: str = "exact"  # exact | relative
    progress: float = 0.0  # fraction of training done, for iou_mode=dynamic
    bmas_mode: str = "mean"  # mean | f1
    bmas_baseline: float = 0.0  # b of the rescale (s - b) / (1 - b)
    bmas_idf: Mapping[int, float] | None = None  # weight by token id
    bmas_drop_punctuation: bool = False
    bmas_repetition_penalty: float = 0.0  # times the share of repeated 3-grams is taken off
    bmas_length_penalty: float = 0.0  # times (1 - shorter / longer) is taken off

    def __post_init__(self) -> None:
        _check("chart_mode", self.chart_mode, ("relaxed", "exact", "edit_distance"))
        _check("iou_mode", self.iou_mode, ("continuous", "threshold", "dynamic"))
        _check("counting_mode", self.counting_mode, ("exact", "relative"))
        _check("bmas_mode", self.bmas_mode, ("mean", "f1"))
        for name in ("iou_threshold", "progress", "bmas_repetition_penalty", "bmas_length_penalty"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name}={getattr(self, name)}: expected a number from 0 to 1")
        if not 0.0 <= self.bmas_baseline < 1.0:
            raise ValueError(f"bmas_baseline={self.bmas_baseline}: expected a number from 0 to below 1")

    @classmethod
    def from_config(cls, reward: RewardConfig) -> RewardOptions:
        """Those that the `reward` section of a configuration names."""
        named = [field.name for field in fields(cls) if hasattr(reward, field.name)]
        return cls(**{name: getattr(reward, name) for name in named})

    @classmethod
    def from_keywords(cls, keywords: Mapping[str, object]) -> RewardOptions:
        """Raises TypeError for an option that there is not, naming the nearest."""
        known = [field.name for field in fields(cls)]
        for name in keywords:
            if name not in known:
                raise TypeError(f"unknown option {name!r}{nearest(name, known)}")
        return cls(**keywords)


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or all that is known where nothing is near."""
    known = list(known)
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; expected one of {', '.join(known)}"


def _check(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(allowed)}")
