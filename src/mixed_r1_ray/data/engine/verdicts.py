"""What has become of each record: kept so far, or dropped by which stage, and because of which other record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STAGES = (
    "kept",
    "unusable",
    "exact duplicate",
    "near duplicate",
    "contaminated",
    "unscored",
    "too hard",
    "too easy",
    "no spread",
)
KEPT = 0


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Arrays over N records. `like` is the record that it resembles, -1 for none: one of the collection's own,
    or, where `of` is k >= 0, of the k-th evaluation set."""

    stage: np.ndarray  # int8 (N,), a place in STAGES
    like: np.ndarray  # int64 (N,)
    of: np.ndarray  # int16 (N,)

    @classmethod
    def none_yet(cls, number: int) -> Verdicts:
        """All kept."""
        return cls(np.zeros(number, np.int8), np.full(number, -1), np.full(number, -1, np.int16))

    def alive(self) -> np.ndarray:
        """Rising numbers of the records that are kept so far."""
        return np.flatnonzero(self.stage == KEPT)

    def drop(self, records: np.ndarray, stage: str, like: np.ndarray | int = -1, of: int = -1) -> None:
        """Marks records that were kept until now."""
        self.stage[records] = STAGES.index(stage)
        self.like[records] = like
        self.of[records] = of
