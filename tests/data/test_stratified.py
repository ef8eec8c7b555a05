"""Batches of fixed shares: composition, no repeats, whole epochs of each stratum, independence of steps."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixed_r1_ray.data.stratified import StratifiedOrder

NAMES = ("chart", "iou", "matching", "open_ended")


@st.composite
def mixtures(draw) -> tuple:
    """Arguments of an order whose strata are just large enough, or up to thrice as large."""
    weights = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    size = draw(st.integers(1, 24))
    least = [-(-size * weight // sum(weights)) for weight in weights]
    counts = [draw(st.integers(count, 3 * count + 2)) for count in least]
    labels = draw(st.permutations([code for code, count in enumerate(counts) for _ in range(count)]))
    return np.array(labels), NAMES[: len(weights)], weights, size, draw(st.integers(0, 2**31))


def stream(order: StratifiedOrder, stratum: int, labels: np.ndarray, steps: int) -> list[int]:
    return [row for step in range(1, steps + 1) for row in order.batch(step) if labels[row] == stratum]


@given(mixtures())
def test_no_batch_repeats_a_row_and_each_holds_the_shares(arguments):
    labels, _, weights, size, _ = arguments
    order = StratifiedOrder(*arguments)
    for step in range(1, 40):
        batch = order.batch(step)
        assert len(batch) == len(set(batch)) == size
        drawn = Counter(labels[batch].tolist())
        for code, weight in enumerate(weights):
            assert abs(drawn[code] - size * weight / sum(weights)) < 1, step


@given(mixtures())
def test_each_stratum_visits_all_its_rows_before_any_again(arguments):
    labels, order = arguments[0], StratifiedOrder(*arguments)
    for code in range(len(arguments[1])):
        rows, drawn = np.flatnonzero(labels == code), stream(order, code, labels, 40)
        for first in range(0, len(drawn) - len(rows) + 1, len(rows)):
            assert sorted(drawn[first : first + len(rows)]) == rows.tolist()


@given(mixtures(), st.lists(st.integers(1, 200), min_size=1, max_size=6))
def test_a_step_has_the_same_rows_whichever_steps_were_asked_before(arguments, steps):
    order = StratifiedOrder(*arguments)
    assert [order.batch(step) for step in steps] == [StratifiedOrder(*arguments).batch(step) for step in steps]


def test_pinned_so_that_a_resumed_run_sees_the_rows_it_would_have_seen():
    order = StratifiedOrder(np.arange(24) % 4, NAMES, [1, 1, 1, 1], 6, seed=7)
    assert [order.batch(step) for step in (1, 2, 3, 40)] == [
        [17, 15, 12, 6, 5, 19],
        [1, 23, 0, 10, 13, 3],
        [8, 14, 9, 11, 4, 22],
        [4, 2, 1, 11, 8, 18],
    ]


def test_a_small_stratum_has_as_many_rows_of_a_batch_as_a_large_one():
    labels = np.array([0] * 10 + [1] * 990)
    order = StratifiedOrder(labels, ("few", "many"), [1, 1], 16, seed=0)
    assert all(Counter(labels[order.batch(step)].tolist()) == {0: 8, 1: 8} for step in range(1, 100))


def test_strata_are_spread_over_a_batch():
    """Whoever takes the first few rows of a batch gets some of each."""
    labels = np.repeat([0, 1, 2, 3], 50)
    order = StratifiedOrder(labels, NAMES, [1, 1, 1, 1], 32, seed=0)
    for step in range(1, 20):
        codes = labels[order.batch(step)].tolist()
        assert all(len(set(codes[first : first + 4])) == 4 for first in range(0, 32, 4))


def test_a_weight_of_zero_leaves_a_stratum_out_and_the_others_as_they_are():
    labels = np.repeat([0, 1, 2], 30)
    order = StratifiedOrder(labels, NAMES[:3], [1, 0, 2], 9, seed=3)
    assert Counter(labels[order.batch(5)].tolist()) == {0: 3, 2: 6}


def test_epochs_and_seeds_shuffle_anew():
    def epochs(seed: int) -> list[tuple[int, ...]]:
        order = StratifiedOrder(np.zeros(50, int), ("a",), [1], 10, seed)
        rows = [row for step in range(1, 11) for row in order.batch(step)]
        return [tuple(rows[:50]), tuple(rows[50:])]

    assert len({epoch for seed in (0, 1) for epoch in epochs(seed)}) == 4


def test_a_stratum_smaller_than_its_share_is_refused_with_both_numbers():
    with pytest.raises(ValueError, match="iou has 7 usable rows, fewer than the 8 that a batch of 16 takes of it"):
        StratifiedOrder(np.array([0] * 20 + [1] * 7), ("chart", "iou"), [1, 1], 16, 0)
    StratifiedOrder(np.array([0] * 20 + [1] * 8), ("chart", "iou"), [1, 1], 16, 0)


def test_far_steps_are_reached_without_those_before():
    labels = np.array([0] * 16 + [1] * 5000)
    batch = StratifiedOrder(labels, ("few", "many"), [1, 1], 32, seed=0).batch(20_000)
    assert len(set(batch)) == 32
