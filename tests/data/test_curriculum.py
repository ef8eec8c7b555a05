"""Easy rows first: what may be drawn at each step, what a batch is made of, and when it ends."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixed_r1_ray.data.curriculum import FIRST_COMPETENCE, EasyToHard, competence
from mixed_r1_ray.data.order import BatchOrder

STEPS = 20


def order_of(rates: list[float], strata: list[int] | None = None, size: int = 8, seed: int = 0) -> EasyToHard:
    strata = np.zeros(len(rates), int) if strata is None else np.array(strata)
    base = BatchOrder([f"type{code}" for code in strata], size, seed)
    return EasyToHard(base, strata, np.array(rates, np.float32), STEPS, seed)


def test_competence_is_the_published_root_schedule():
    """c(t) = min(1, (t (1 - c0²) / T + c0²)^(1/2)): c0 at t = 0, 1 at t = T, and its square grows evenly."""
    assert competence(1, 100, 0.1) == pytest.approx(0.1)
    assert competence(101, 100, 0.1) == competence(500, 100, 0.1) == 1.0
    assert competence(51, 100, 0.1) == pytest.approx(math.sqrt(0.505))
    squares = np.array([competence(step, 100) ** 2 for step in range(1, 102)])
    assert np.allclose(np.diff(squares), (1 - FIRST_COMPETENCE**2) / 100)


def test_early_batches_hold_the_easiest_rows_and_later_ones_ever_harder_ones():
    rates = np.linspace(0, 1, 200).tolist()
    order = order_of(rates)
    for step in range(1, STEPS + 1):
        hardest = min(rates[row] for row in order.batch(step))
        assert hardest >= 1 - competence(step, STEPS) - 0.01
    assert min(rates[row] for row in order.batch(STEPS)) < 0.5


def test_from_the_step_after_it_the_order_is_what_it_would_have_been_without():
    rates = np.linspace(0, 1, 200).tolist()
    plain = BatchOrder(["type0"] * 200, 8, 0)
    order = order_of(rates)
    assert [order.batch(step) for step in range(STEPS + 1, 60)] == [plain.batch(step) for step in range(STEPS + 1, 60)]
    assert order.batch(1) != plain.batch(1)


@st.composite
def rated(draw) -> tuple:
    """Arguments of `order_of`."""
    count = draw(st.integers(1, 40))
    rates = draw(st.lists(st.sampled_from([0.0, 0.25, 1.0, math.nan]), min_size=count, max_size=count))
    strata = draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    return rates, strata, draw(st.integers(1, count)), draw(st.integers(0, 2**31))


@given(rated(), st.integers(1, STEPS + 5))
def test_a_batch_repeats_nothing_and_is_made_of_what_it_would_be_made_of_without(arguments, step):
    order = order_of(*arguments)
    batch, plain = order.batch(step), order.order.batch(step)
    assert len(set(batch)) == len(batch) == len(plain)
    assert order.strata[batch].tolist() == order.strata[plain].tolist()


@given(rated(), st.lists(st.integers(1, STEPS + 5), min_size=1, max_size=6))
def test_a_step_has_the_same_rows_whichever_steps_were_asked_before(arguments, steps):
    order = order_of(*arguments)
    assert [order.batch(step) for step in steps] == [order_of(*arguments).batch(step) for step in steps]


def test_windows_are_of_each_stratum_by_itself():
    """Charts that are all harder than all captions are drawn from the first step on, the easiest of them."""
    rates = [*np.linspace(0.9, 1, 100), *np.linspace(0, 0.1, 100)]
    strata = [0] * 100 + [1] * 100
    batch = order_of(rates, strata).batch(1)
    assert Counter(strata[row] for row in batch) == {0: 4, 1: 4}
    assert all(rates[row] >= 0.079 for row in batch if strata[row] == 1)


def test_rows_without_a_rate_are_drawn_from_the_first_step_on():
    rates = [math.nan] * 50 + np.linspace(0, 1, 50).tolist()
    order = order_of(rates)
    window = order.window(0, 1, 8)
    assert set(range(50)) <= set(window.tolist())
    assert len(window) == 50 + math.ceil(FIRST_COMPETENCE * 50)


def test_a_window_is_never_smaller_than_what_a_batch_takes():
    order = order_of(np.linspace(0, 1, 10).tolist(), size=10)
    assert sorted(order.batch(1)) == list(range(10))


def test_which_of_equally_easy_rows_come_first_is_a_matter_of_the_seed_not_of_the_file():
    windows = {tuple(sorted(order_of([0.5] * 100, seed=seed).window(0, 1, 8))) for seed in range(5)}
    assert len(windows) == 5
