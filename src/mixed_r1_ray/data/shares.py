"""How many rows of a batch each stratum gives: its share to rounding, and exactly its share in the long run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

MOST = 10**9  # for the sum of weights in their common measure: products of it stay far inside 64 bits


class Shares:
    """Batches of B rows over strata of weights w_1, w_2, ..., whole numbers whose sum is W.

    Stratum i gives floor(B w_i / W) rows to every batch, and one more to some: to batch k (0, 1, ...) where a multiple
    of W lies in (x_k + G_i-1, x_k + G_i], G the running sum of the remainders B w_i mod W, and x_k = a k mod W.
    So a batch always has B rows, a stratum never gives more than ceil(B w_i / W) of them, and over any W batches in
    a row, in which x_k takes each value once, exactly B w_i. (Systematic sampling. Choice: a is such that the
    continued fraction of a / W has small quotients, as the golden ratio's, so that the x_k of any stretch of batches lie
    evenly, and what is given stays near the share at all times.)
    """

    def __init__(self, weights: Sequence[float], batch_size: int):
        whole = _whole_numbers(weights)
        self.total = int(whole.sum())
        self.batch_size = batch_size
        self._per_period = batch_size * whole
        self._base, remainders = np.divmod(self._per_period, self.total)
        self._edges = np.concatenate([[0], np.cumsum(remainders)])
        self._stride = _even_stride(self.total)
        self._latest = 1, np.zeros_like(whole)
        self.most = self._base + (remainders > 0)  # rows of a batch, at most; int64 (strata,)

    def before(self, step: int) -> np.ndarray:
        """int64 (strata,): rows that each has given before step 1, 2, ..."""
        known, rows = self._latest
        if step == known + 1:
            rows = rows + self.of(known)
        elif step != known:
            periods, rest = divmod(step - 1, self.total)
            rows = periods * self._per_period + rest * self._base + self._extra(np.arange(rest)).sum(axis=0)
        self._latest = step, rows
        return rows

    def of(self, step: int) -> np.ndarray:
        """int64 (strata,): rows that each gives to step 1, 2, ..."""
        return self._base + self._extra(np.array([(step - 1) % self.total]))[0]

    def _extra(self, batches: np.ndarray) -> np.ndarray:
        """0 or 1, (batches, strata)."""
        offsets = batches * self._stride % self.total
        return np.diff((offsets[:, None] + self._edges) // self.total, axis=1)


def _whole_numbers(weights: Sequence[float]) -> np.ndarray:
    """The smallest whole numbers in these proportions. Raises ValueError where they are too large to count with."""
    fractions = [Fraction(str(weight)) for weight in weights]
    scale = math.lcm(*(fraction.denominator for fraction in fractions))
    whole = [int(fraction * scale) for fraction in fractions]
    divisor = math.gcd(*whole)
    if sum(whole) // divisor > MOST:
        raise ValueError(f"weights {', '.join(map(str, weights))} have too fine a common measure; round them")
    return np.array([number // divisor for number in whole], dtype=np.int64)


def _even_stride(total: int) -> int:
    """The number without a common factor with `total` whose multiples, modulo `total`, lie most evenly."""
    golden = int(total * (math.sqrt(5) - 1) / 2)
    candidates = range(max(1, golden - 1000), min(total, golden + 1000) + 1)
    return min((one for one in candidates if math.gcd(one, total) == 1), key=lambda one: _sum_of_quotients(one, total))


def _sum_of_quotients(numerator: int, denominator: int) -> int:
    """Of the continued fraction of numerator / denominator."""
    total = 0
    while numerator:
        quotient, rest = divmod(denominator, numerator)
        total += quotient
        numerator, denominator = rest, numerator
    return total
