"""Drawing by type: the order's own batches without refills, every row once an epoch of its type with them."""

from __future__ import annotations

import json
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mixed_r1_ray.data.draws import PromptDraws
from mixed_r1_ray.data.order import BatchOrder

TYPES = ["matching", "chart", "iou"]


@st.composite
def orders(draw) -> BatchOrder:
    types = draw(st.lists(st.sampled_from(TYPES), min_size=2, max_size=30))
    return BatchOrder(types, draw(st.integers(1, len(types))), draw(st.integers(0, 99)))


def draws_of(order: BatchOrder) -> PromptDraws:
    return PromptDraws(order.batch, order.reward_types.tolist())


def run(draws: PromptDraws, refills: list[list[str]], first: int = 1) -> list[list[int]]:
    """The rows of each step: its batch, then what is refilled, with the next batch asked for in between."""
    steps = []
    for step, types in enumerate(refills, start=first):
        rows = draws.batch(step)
        draws.batch(step + 1)
        steps.append(rows + draws.refill(types, taken=rows))
    return steps


plans = st.lists(st.lists(st.sampled_from(TYPES), max_size=4), min_size=1, max_size=12)


@given(orders(), st.integers(1, 12))
def test_without_refills_batches_are_the_orders_own(order, steps):
    assert run(draws_of(order), [[]] * steps) == [order.batch(step) for step in range(1, steps + 1)]


@given(orders(), plans)
def test_no_step_draws_a_row_twice(order, plan):
    present = set(order.reward_types.tolist())
    for rows in run(draws_of(order), [[kind for kind in kinds if kind in present] for kinds in plan]):
        assert len(set(rows)) == len(rows)


@given(st.integers(0, 99), plans)
def test_a_row_comes_again_only_once_every_other_of_its_type_has_come(seed, plan):
    """Types of 11 rows and batches that take few of each: no step can want a row twice."""
    order = BatchOrder(TYPES * 11, 6, seed)
    draws = draws_of(order)
    drawn = [row for rows in run(draws, plan) for row in rows]
    left = draws.batch(len(plan) + 1)  # was drawn before the last refill
    for kind in TYPES:
        counts = Counter(row for row in [*drawn, *left] if order.reward_types[row] == kind)
        times = [counts[row] for row in range(33) if order.reward_types[row] == kind]
        assert max(times) - min(times) <= 1


@given(orders(), plans, plans)
def test_continues_from_its_state_as_if_it_had_not_stopped(order, before, after):
    present = set(order.reward_types.tolist())
    before, after = ([[kind for kind in kinds if kind in present] for kinds in plan] for plan in (before, after))
    whole = draws_of(order)
    run(whole, before)
    state = json.loads(json.dumps(whole.state()))
    expected = run(whole, after, first=len(before) + 1)
    fresh = draws_of(order)
    fresh.restore(state)
    assert run(fresh, after, first=len(before) + 1) == expected


def test_a_refill_has_the_types_it_was_asked_for_in_turn():
    order = BatchOrder(TYPES * 8, 6, seed=1)
    draws = draws_of(order)
    rows = draws.batch(1)
    asked = ["iou", "chart", "iou"]
    assert draws.types(draws.refill(asked, taken=rows)) == asked


def test_a_type_with_no_row_left_gives_fewer_and_loses_none():
    draws = PromptDraws(BatchOrder(["a", "a", "b"], 3, seed=0).batch, ["a", "a", "b"])
    rows = draws.batch(1)
    assert draws.refill(["a", "b"], taken=rows) == []
    assert sorted(draws.batch(2)) == [0, 1, 2]
