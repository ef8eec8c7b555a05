"""Easy rows first: for so many steps, only the rows whose pass rate is high enough are drawn."""

from __future__ import annotations

import math

import numpy as np

from mixed_r1_ray.data.order import Order

FIRST_COMPETENCE = 0.2  # of the rows that are rated, at the first step (choice)

DRAW, LOT = 2, 3  # seeds of what is drawn here; `data/stratified.py` has 1


def competence(step: int, steps: int, first: float = FIRST_COMPETENCE) -> float:
    """The fraction of rows, easiest first, that step 1, 2, ... draws from: sqrt(t (1 - first²) / steps + first²).

    t = step - 1; from step `steps` + 1 on it is 1. This is the root competence of Platanios et al. 2019 (arXiv
    1903.09848): new rows come in ever more slowly, for each is drawn ever more rarely.
    """
    return min(1.0, math.sqrt((step - 1) * (1 - first**2) / steps + first**2))


class EasyToHard:
    """An order whose first `steps` batches keep their composition, but draw its rows from the easy ones.

    A batch takes as many rows of each stratum as `order` would. They are drawn without replacement among the easiest
    fraction of the stratum's rated rows, which is `competence`, and all its rows without a pass rate: nothing
    says that these are hard (choice). Then `order` goes on as it would have without a curriculum.
    """

    def __init__(self, order: Order, strata: np.ndarray, pass_rates: np.ndarray, steps: int, seed: int):
        """strata: int (N,), of each row. pass_rates: float (N,), NaN where there is none."""
        self.order, self.strata, self.steps, self.seed = order, strata, steps, seed
        self._unrated, self._easiest_first = {}, {}
        for stratum in np.unique(strata).tolist():
            rows = np.flatnonzero(strata == stratum)
            rated = rows[~np.isnan(pass_rates[rows])]
            self._unrated[stratum] = rows[np.isnan(pass_rates[rows])]
            lot = np.random.default_rng([seed, LOT, stratum]).random(len(rated))  # among rows of one rate
            self._easiest_first[stratum] = rated[np.lexsort((lot, -pass_rates[rated]))]

    def batch(self, step: int) -> list[int]:
        """Row indices of step 1, 2, ...; all different."""
        rows = np.array(self.order.batch(step))
        if step > self.steps:
            return rows.tolist()
        for stratum in np.unique(self.strata[rows]).tolist():
            places = np.flatnonzero(self.strata[rows] == stratum)
            random = np.random.default_rng([self.seed, DRAW, stratum, step])
            rows[places] = random.choice(self.window(stratum, step, len(places)), len(places), replace=False)
        return rows.tolist()

    def window(self, stratum: int, step: int, least: int) -> np.ndarray:
        """Rows of a stratum that a step may draw, at least `least` of them."""
        easiest, unrated = self._easiest_first[stratum], self._unrated[stratum]
        count = max(math.ceil(competence(step, self.steps) * len(easiest)), least - len(unrated))
        return np.concatenate([easiest[:count], unrated])
