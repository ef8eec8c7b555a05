"""Says which samples were not scored and why, without a flood when one reason holds for all of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mixed_r1_ray.types import RewardBreakdown

MAX_REASONS = 100  # different ones that a run tells
_PARTICULARS = re.compile(r"0x[0-9a-fA-F]+|\d+(?:\.\d+)?|'[^'\n]*'|\"[^\"\n]*\"")


@dataclass(frozen=True, slots=True)
class Unscored:
    """One sample that could not be scored."""

    prompt_id: str
    source: str
    sample_index: int
    reason: str

    def __str__(self) -> str:
        return f"prompt {self.prompt_id!r}, sample {self.sample_index} (source {self.source}): {self.reason}"


def find_unscored(prompt_id: str, source: str, rewards: Iterable[RewardBreakdown]) -> list[Unscored]:
    """The samples of a group, in order of sample_index, that have no reward."""
    return [
        Unscored(prompt_id, source, index, reward.detail)
        for index, reward in enumerate(rewards)
        if reward.total is None
    ]


def count_by_source(unscored: Iterable[Unscored]) -> str:
    """`shapes 12, charts 3`, the most frequent first."""
    counts = Counter(sample.source for sample in unscored)
    return ", ".join(f"{source} {count}" for source, count in counts.most_common())


class UnscoredWarnings:
    """Warns of a reason when it is new, and again whenever ten times as many samples have it as last time.

    Reasons that differ only in numbers and quoted words are one; one sample that had it is quoted in full.
    """

    def __init__(self, warn: Callable[[str], None]):
        self._warn = warn
        self._counts: Counter[str] = Counter()
        self._told: dict[str, int] = {}  # reason → its count when it was last told
        self._full = False

    def add(self, unscored: Iterable[Unscored]) -> None:
        """Counts the samples of a step, and says what there is to say of them."""
        examples: dict[str, Unscored] = {}
        for sample in unscored:
            reason = _PARTICULARS.sub("#", sample.reason)
            if reason in self._counts or len(self._counts) < MAX_REASONS:
                self._counts[reason] += 1
                examples.setdefault(reason, sample)
            elif not self._full:
                self._full = True
                self._warn(f"samples were not scored for more than {MAX_REASONS} reasons; no more are told")
        for reason, example in examples.items():
            count, told = self._counts[reason], self._told.get(reason, 0)
            if count >= 10 * told:
                self._told[reason] = count
                self._warn(f"{_num_samples(count)} not scored so far for one reason; {example}")


def _num_samples(count: int) -> str:
    return "1 sample was" if count == 1 else f"{count} samples were"
