"""Shares of a batch: never off by a whole row, and exact over every period, whatever the weights."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixed_r1_ray.data.shares import Shares

WEIGHTS = st.lists(st.integers(1, 30), min_size=1, max_size=6)


@given(WEIGHTS, st.integers(1, 200), st.integers(1, 10**6))
def test_every_batch_is_full_and_each_part_is_its_share_rounded_down_or_up(weights, size, step):
    counts = Shares(weights, size).of(step)
    assert counts.sum() == size
    for count, weight in zip(counts.tolist(), weights, strict=True):
        assert abs(count - Fraction(size * weight, sum(weights))) < 1


@given(WEIGHTS, st.integers(1, 200), st.integers(1, 10**6))
def test_shares_are_exact_over_any_period_of_the_sum_of_weights(weights, size, step):
    shares, period = Shares(weights, size), sum(weights)
    given_ = shares.before(step + period) - shares.before(step)
    assert given_.tolist() == [size * weight for weight in weights]


@given(WEIGHTS, st.integers(1, 200), st.lists(st.integers(1, 200), min_size=1, max_size=5))
def test_what_came_before_is_the_sum_of_the_batches_before_in_whichever_order_it_is_asked(weights, size, steps):
    shares = Shares(weights, size)
    for step in [*steps, steps[-1] + 1]:
        summed = [Shares(weights, size).of(earlier) for earlier in range(1, step)]
        assert shares.before(step).tolist() == np.sum([[0] * len(weights), *summed], axis=0).tolist()


@given(WEIGHTS, st.integers(1, 200))
def test_no_stratum_lags_its_share_by_more_than_a_few_rows_at_any_time(weights, size):
    shares, total = Shares(weights, size), sum(weights)
    for step in range(1, total + 1):
        exact = np.array(weights) * size * (step - 1) / total
        assert np.abs(shares.before(step) - exact).max() < 4


def test_equal_weights_of_four_over_thirty_rows_take_turns_at_the_odd_ones():
    shares = Shares([1, 1, 1, 1], 30)
    counts = np.array([shares.of(step) for step in range(1, 5)])
    assert set(counts.ravel().tolist()) == {7, 8} and counts.sum(axis=0).tolist() == [30, 30, 30, 30]


def test_weights_are_proportions():
    for weights in ([0.1, 0.2, 0.3], [1, 2, 3], [10.0, 20.0, 30.0], [1e-3, 2e-3, 3e-3]):
        assert [Shares(weights, 32).of(step).tolist() for step in (1, 2, 3)] == [
            Shares([1, 2, 3], 32).of(step).tolist() for step in (1, 2, 3)
        ]


def test_a_tiny_weight_gets_its_row_now_and_then():
    shares = Shares([1, 999], 8)  # 8 of 1000 batches' rows
    counts = np.array([shares.of(step)[0] for step in range(1, 1001)])
    assert set(counts.tolist()) == {0, 1} and counts.sum() == 8
    gaps = np.diff(np.flatnonzero(counts))
    assert gaps.min() > 60 and gaps.max() < 250  # 125 on average


def test_weights_without_a_common_measure_are_refused():
    with pytest.raises(ValueError, match="1.0, 3.14159265358979 have too fine a common measure"):
        Shares([1.0, 3.14159265358979], 8)
