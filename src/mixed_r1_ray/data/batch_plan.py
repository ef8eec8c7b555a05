"""Chooses the order of training rows that a configuration asks for, and checks that the data can give it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches

import numpy as np

from mixed_r1_ray.config import Config, DataConfig
from mixed_r1_ray.data.curriculum import EasyToHard
from mixed_r1_ray.data.order import BatchOrder, Order
from mixed_r1_ray.data.reader import UsableRows
from mixed_r1_ray.data.stratified import StratifiedOrder
from mixed_r1_ray.errors import UserError

ADVICE = "lower its weight (data.weights) or rollout.prompts_per_step, or give more rows"


def make_order(rows: UsableRows, config: Config, warn: Callable[[str], None]) -> Order:
    """The order of `data.mixing` and `data.curriculum`. Raises UserError where the rows are too few, or not rated."""
    data, batch_size, seed = config.data, config.rollout.prompts_per_step, config.run.seed
    if len(rows) < batch_size:
        raise UserError(
            f"data.train={data.train}: {len(rows)} usable rows are fewer than rollout.prompts_per_step={batch_size}"
        )
    strata, names = rows.reward_type, rows.reward_types
    if data.mixing == "by_source":
        strata, names = rows.source, rows.sources
    strata, names = _by_name(strata, names)
    if data.mixing == "proportional":
        order: Order = BatchOrder(np.array(names)[strata], batch_size, seed)
    else:
        try:
            order = StratifiedOrder(strata, names, _weights(data, names), batch_size, seed)
        except ValueError as error:
            raise UserError(f"data.train={data.train}, data.mixing={data.mixing}: {error}; {ADVICE}") from None
    return order if data.curriculum == "none" else _easy_to_hard(order, strata, rows, config, warn)


def _by_name(codes: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Codes that count the names in their own order, whichever came first in the files."""
    order = np.argsort(np.array(names))
    ranks = np.empty(len(names), codes.dtype)
    ranks[order] = np.arange(len(names))
    return ranks[codes], tuple(names[place] for place in order)


def _weights(data: DataConfig, names: Sequence[str]) -> list[float]:
    """Of each name, 1 where none was given. Raises UserError for one that names nothing, and for zeros alone."""
    for name in data.weights:
        if name not in names:
            near = get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
            raise UserError(f"data.weights names {name!r}, which no usable row of data.train={data.train} has; {hint}")
    weights = [data.weights.get(name, 1.0) for name in names]
    if not any(weights):
        raise UserError(f"data.weights leaves nothing: {', '.join(names)} are all 0; raise one of them")
    return weights


def _easy_to_hard(
    order: Order, strata: np.ndarray, rows: UsableRows, config: Config, warn: Callable[[str], None]
) -> EasyToHard:
    unrated = int(np.isnan(rows.pass_rate).sum())
    if unrated == len(rows):
        raise UserError(
            f"data.curriculum=easy_to_hard: none of the {unrated} usable rows of data.train={config.data.train} has a "
            "pass_rate from 0 to 1 in its meta; `python -m mixed_r1_ray.data select` measures them"
        )
    if unrated:
        warn(
            f"data.curriculum: {unrated} of {len(rows)} rows have no pass_rate in their meta; they are drawn from the "
            "first step on, like the easy ones"
        )
    return EasyToHard(order, strata, rows.pass_rate, config.data.curriculum_steps, config.run.seed)
