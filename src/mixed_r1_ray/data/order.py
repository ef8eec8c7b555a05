"""Which rows a step trains on: a pure function of seed and step, so a resumed run needs no cursor but its step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Order(Protocol):
    """Says which rows each step trains on; the same whichever steps were asked for before."""

    def batch(self, step: int) -> list[int]:
        """Row indices of step 1, 2, ...; all different."""


class BatchOrder:
    """An endless stream of shuffled epochs, cut into batches of `batch_size` rows.

    Every epoch visits each row once. Within it reward types are spread evenly, so that each batch holds them in about
    the proportions of the whole (choice: it takes the luck of the draw out of per-type curves).
    """

    def __init__(self, reward_types: Sequence[str], batch_size: int, seed: int):
        if batch_size > len(reward_types):
            raise ValueError(f"a batch of {batch_size} prompts from {len(reward_types)} rows would repeat some")
        self.reward_types = np.asarray(reward_types)
        self.batch_size = batch_size
        self.seed = seed
        self._cycle = batch_size // math.gcd(batch_size, len(reward_types))  # so often an epoch begins with a batch
        self._latest = 0, self._shuffle(0)

    def batch(self, step: int) -> list[int]:
        """Row indices of step 1, 2, ...; all different."""
        first = (step - 1) * self.batch_size
        return [self._row(position) for position in range(first, first + self.batch_size)]

    def _row(self, position: int) -> int:
        epoch, offset = divmod(position, len(self.reward_types))
        return int(self._epoch(epoch)[offset])

    def _epoch(self, epoch: int) -> np.ndarray:
        """Walks up from the latest epoch, or one that begins with a batch: each must know how the one before ended."""
        known, order = self._latest
        start = epoch - epoch % self._cycle
        if not start <= known <= epoch:
            known, order = start, self._shuffle(start)
        for number in range(known + 1, epoch + 1):
            order = self._without_early_repeats(self._shuffle(number), order, number)
        self._latest = epoch, order
        return order

    def _shuffle(self, epoch: int) -> np.ndarray:
        random = np.random.default_rng([self.seed, epoch])
        place = np.empty(len(self.reward_types))
        for reward_type in np.unique(self.reward_types):
            rows = random.permutation(np.flatnonzero(self.reward_types == reward_type))
            place[rows] = (np.arange(len(rows)) + random.random(len(rows))) / len(rows)
        return np.argsort(place, kind="stable")

    def _without_early_repeats(self, order: np.ndarray, former: np.ndarray, epoch: int) -> np.ndarray:
        """Rows that end the former epoch's open batch do not also begin this one: one batch would hold them twice."""
        open_rows = (epoch * len(order)) % self.batch_size
        if not open_rows:
            return order
        recent = set(former[-open_rows:].tolist())
        first = [row for row in order if row not in recent][: self.batch_size - open_rows]
        taken = set(first)
        return np.asarray(first + [row for row in order if row not in taken])
