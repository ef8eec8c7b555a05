"""Batches that take a fixed share of their rows from each stratum: a reward type, or a source."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixed_r1_ray.data.shares import Shares

WALK = 1  # seeds of what is drawn here; `data/curriculum.py` has others


class StratifiedOrder:
    """A pure function of seed and step, like `BatchOrder`, with shares that are chosen instead of found.

    Each stratum walks its own endless shuffled epochs, however large the others are: rows of a small one come round
    more often.
    """

    def __init__(
        self, strata: np.ndarray, names: Sequence[str], weights: Sequence[float], batch_size: int, seed: int
    ):
        """strata: int (N,), a place in `names`, of each row. weights: of each name; 0 leaves its rows out.

        Raises ValueError where a stratum has fewer rows than a batch takes of it: it would repeat some.
        """
        taken = [number for number, weight in enumerate(weights) if weight > 0]
        self.shares = Shares([weights[number] for number in taken], batch_size)
        self._walks = []
        for number, most in zip(taken, self.shares.most.tolist(), strict=True):
            rows = np.flatnonzero(strata == number)
            if len(rows) < most:
                raise ValueError(
                    f"{names[number]} has {len(rows)} usable rows, fewer than the {most} that a batch of {batch_size} "
                    "takes of it"
                )
            self._walks.append(_Walk(rows, most, (seed, WALK, number)))

    def batch(self, step: int) -> list[int]:
        """Row indices of step 1, 2, ...; all different, strata spread evenly."""
        drawn = [
            (place, row)
            for walk, first, count in zip(self._walks, self.shares.before(step), self.shares.of(step), strict=True)
            for place, row in zip((np.arange(count) + 0.5) / count, walk.rows(int(first), int(count)), strict=True)
        ]
        return [row for _, row in sorted(drawn, key=lambda pair: pair[0])]


class _Walk:
    """Endless shuffled epochs of one stratum in which no row comes twice among any `apart` in a row."""

    def __init__(self, rows: np.ndarray, apart: int, seed: tuple[int, ...]):
        self._rows, self._apart, self._seed = rows, apart, seed
        self._latest = 0, self._shuffle(0)

    def rows(self, first: int, count: int) -> list[int]:
        """The rows at positions `first`, `first` + 1, ... of the walk."""
        positions = (divmod(position, len(self._rows)) for position in range(first, first + count))
        return [int(self._epoch(epoch)[offset]) for epoch, offset in positions]

    def _epoch(self, epoch: int) -> np.ndarray:
        """Walks up from the latest one, or the first: each must know how the one before ended."""
        known, order = self._latest
        if epoch < known:
            known, order = 0, self._shuffle(0)
        for number in range(known + 1, epoch + 1):
            order = self._kept_apart(self._shuffle(number), order)
        self._latest = epoch, order
        return order

    def _shuffle(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([*self._seed, epoch]).permutation(self._rows)

    def _kept_apart(self, order: np.ndarray, former: np.ndarray) -> np.ndarray:
        """`order` with the rows that ended `former` moved back: offset p has none of its last apart - 1 - p."""
        recent = former[max(0, len(former) - self._apart + 1) :].tolist()
        waiting, first = order.tolist(), []
        for offset in range(len(recent)):
            banned = set(recent[offset:])
            first.append(waiting.pop(next(place for place, row in enumerate(waiting) if row not in banned)))
        return np.array(first + waiting)
