"""The order of rows: epochs are permutations, batches repeat nothing, types are spread, steps are independent."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixed_r1_ray.data.order import BatchOrder


@st.composite
def orders(draw) -> BatchOrder:
    types = draw(st.lists(st.sampled_from(["matching", "chart", "iou"]), min_size=1, max_size=40))
    return BatchOrder(types, draw(st.integers(1, len(types))), draw(st.integers(0, 2**31)))


@given(orders())
def test_every_epoch_visits_every_row_once(order):
    rows, size = len(order.reward_types), order.batch_size
    stream = [row for step in range(1, 4 * rows // size + 2) for row in order.batch(step)]
    for epoch in range(4):
        assert sorted(stream[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


@given(orders())
def test_no_batch_repeats_a_row_also_where_it_spans_two_epochs(order):
    for step in range(1, 5 * len(order.reward_types) // order.batch_size + 2):
        assert len(set(order.batch(step))) == order.batch_size


@given(orders(), st.lists(st.integers(1, 300), min_size=1, max_size=8))
def test_a_step_has_the_same_rows_whichever_steps_were_asked_before(order, steps):
    asked = [order.batch(step) for step in steps]
    fresh = [
        BatchOrder(order.reward_types.tolist(), order.batch_size, order.seed).batch(step) for step in steps
    ]
    assert asked == fresh


def test_pinned_so_that_a_resumed_run_sees_the_rows_it_would_have_seen():
    order = BatchOrder(["matching", "chart", "iou", "open_ended"] * 3, batch_size=5, seed=7)
    assert [order.batch(step) for step in (1, 2, 3, 40)] == [
        [6, 0, 3, 1, 9],
        [8, 7, 10, 4, 5],
        [2, 11, 1, 10, 8],
        [3, 7, 6, 4, 9],
    ]


@pytest.mark.parametrize("counts", [(256, 256, 256, 256), (700, 100, 150, 74)])
def test_batches_hold_the_types_in_the_proportions_of_the_whole(counts):
    types = [name for name, count in zip("abcd", counts, strict=True) for _ in range(count)]
    order = BatchOrder(types, batch_size=32, seed=0)
    for step in range(1, 3 * len(types) // 32):
        drawn = Counter(types[row] for row in order.batch(step))
        for name, count in zip("abcd", counts, strict=True):
            assert abs(drawn[name] - 32 * count / len(types)) < 4, step


def test_rows_of_one_type_are_shuffled_anew_each_epoch_and_for_each_seed():
    def epochs(seed):
        order = BatchOrder(["a"] * 50, batch_size=50, seed=seed)
        return [order.batch(step) for step in (1, 2)]

    assert len({tuple(epoch) for seed in (0, 1) for epoch in epochs(seed)}) == 4


def test_every_row_may_come_at_every_place():
    places = np.zeros((6, 6), int)
    for seed in range(300):
        places[np.arange(6), BatchOrder(["a", "a", "a", "b", "b", "b"], 6, seed).batch(1)] += 1
    assert places.min() > 20


def test_far_steps_are_reached_without_those_before():
    """A run of many epochs over few rows, resumed late: 511 epochs since one last began with a batch."""
    rows = BatchOrder(["a"] * 1001, batch_size=512, seed=0).batch(511 * 1001 // 512 + 1)
    assert len(set(rows)) == 512


def test_a_batch_larger_than_the_data_is_refused_with_both_numbers():
    with pytest.raises(ValueError, match="batch of 5 prompts from 4 rows"):
        BatchOrder(["a"] * 4, 5, 0)
