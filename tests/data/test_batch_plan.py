"""From configuration and rows to an order: what is refused, and that runs of old keep theirs."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from mixed_r1_ray.config import Config, DataConfig
from mixed_r1_ray.data.batch_plan import make_order
from mixed_r1_ray.data.reader import UsableRows
from mixed_r1_ray.errors import UserError

TYPES = ["matching"] * 20 + ["chart"] * 10 + ["iou"] * 10
SOURCES = ["ai2d"] * 5 + ["vsr"] * 15 + ["chartqa"] * 10 + ["refcoco"] * 10


def rows_of(types=TYPES, sources=SOURCES, rates=None) -> UsableRows:
    """Names are numbered as they come, as the reader does."""
    names = [tuple(dict.fromkeys(labels)) for labels in (types, sources)]
    codes = [
        np.array([known.index(label) for label in labels], np.int32)
        for known, labels in zip(names, (types, sources), strict=True)
    ]
    count = len(types)
    rates = np.full(count, math.nan, np.float32) if rates is None else np.array(rates, np.float32)
    return UsableRows(np.zeros(count, np.int32), np.arange(count), *codes, rates, *names)


def config_of(prompts: int = 6, **data) -> Config:
    config = Config(data=DataConfig(train="mine.parquet", **data))
    return replace(config, rollout=replace(config.rollout, prompts_per_step=prompts))


def order_of(prompts: int = 6, rows: UsableRows | None = None, **data):
    return make_order(rows or rows_of(), config_of(prompts, **data), warn=lambda text: None)


def refusal(*arguments, **data) -> str:
    with pytest.raises(UserError) as caught:
        order_of(*arguments, **data)
    return str(caught.value)


def labels(batch: list[int], of: list[str]) -> dict[str, int]:
    return dict(Counter(of[row] for row in batch))


def test_proportional_is_the_order_that_runs_have_always_had():
    """Written down from the version that had no other; a run that was begun by it goes on rightly."""
    rows = rows_of(["matching", "chart", "iou", "open_ended"] * 3, ["one"] * 12)
    order = make_order(rows, replace(config_of(5), run=replace(Config().run, seed=7)), warn=lambda text: None)
    assert [order.batch(step) for step in (1, 2, 3, 40)] == [
        [6, 0, 3, 1, 9],
        [8, 7, 10, 4, 5],
        [2, 11, 1, 10, 8],
        [3, 7, 6, 4, 9],
    ]


def test_by_type_gives_types_and_by_source_sources_the_same_number():
    assert labels(order_of(mixing="by_type").batch(3), TYPES) == {"matching": 2, "chart": 2, "iou": 2}
    by_source = labels(order_of(8, mixing="by_source").batch(3), SOURCES)
    assert by_source == {"ai2d": 2, "vsr": 2, "chartqa": 2, "refcoco": 2}


def test_weights_are_of_names_and_the_others_have_one():
    order = order_of(8, mixing="by_source", weights={"vsr": 5.0, "ai2d": 0.0, "chartqa": 2.0})
    assert labels(order.batch(2), SOURCES) == {"vsr": 5, "chartqa": 2, "refcoco": 1}


def test_which_file_comes_first_decides_nothing():
    turned = rows_of(TYPES[::-1], SOURCES[::-1])
    for mixing in ("by_type", "by_source"):
        straight, backward = order_of(mixing=mixing).batch(4), order_of(rows=turned, mixing=mixing).batch(4)
        assert labels(straight, TYPES) == labels(backward, TYPES[::-1])


def test_a_weight_for_nothing_names_the_nearest_and_what_there_is():
    assert "data.weights names 'chrt', which no usable row" in refusal(mixing="by_type", weights={"chrt": 2.0})
    assert "did you mean 'chart'?" in refusal(mixing="by_type", weights={"chrt": 2.0})
    assert "there are chart, iou, matching" in refusal(mixing="by_type", weights={"zzz": 2.0})
    assert "'chart', which no" in refusal(mixing="by_source", weights={"chart": 2.0})


def test_weights_that_leave_nothing_are_refused():
    said = refusal(mixing="by_type", weights={"chart": 0.0, "iou": 0.0, "matching": 0.0})
    assert "chart, iou, matching are all 0" in said


def test_too_few_rows_are_refused_with_both_numbers_and_what_to_do():
    assert "40 usable rows are fewer than rollout.prompts_per_step=41" in refusal(41)
    said = refusal(24, mixing="by_source")
    assert "data.mixing=by_source: ai2d has 5 usable rows, fewer than the 6 that a batch of 24 takes of it" in said
    assert "lower its weight (data.weights) or rollout.prompts_per_step" in said


def test_a_curriculum_over_rows_that_nobody_rated_is_refused():
    assert "none of the 40 usable rows of data.train=mine.parquet has a pass_rate" in refusal(curriculum="easy_to_hard")


def test_rows_without_a_rate_are_told_once():
    said: list[str] = []
    rows = rows_of(rates=[0.5] * 30 + [math.nan] * 10)
    make_order(rows, config_of(curriculum="easy_to_hard"), said.append)
    assert len(said) == 1 and "10 of 40 rows have no pass_rate" in said[0]


@pytest.mark.parametrize("mixing", ["proportional", "by_type", "by_source"])
def test_a_curriculum_keeps_the_mixing(mixing):
    rates = np.linspace(0, 1, 40)
    plain = order_of(8, mixing=mixing)
    easy = order_of(8, rows_of(rates=rates), mixing=mixing, curriculum="easy_to_hard", curriculum_steps=10)
    strata = SOURCES if mixing == "by_source" else TYPES
    for step in range(1, 11):
        assert labels(easy.batch(step), strata) == labels(plain.batch(step), strata)
    assert [easy.batch(step) for step in (11, 30)] == [plain.batch(step) for step in (11, 30)]
