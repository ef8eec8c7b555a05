"""Cutting a global batch into ranks and microbatches, for random batches."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixed_r1_ray.policy.microbatches import Microbatch, plan_microbatches
from mixed_r1_ray.types import TrainBatch, TrainGroup


def train_batch(groups: list[tuple[int, list[tuple[int, float | None]]]], step: int = 3) -> TrainBatch:
    """groups: (prompt tokens, [(response tokens, advantage)])."""
    made = tuple(
        TrainGroup(
            prompt_id=f"p{number}",
            num_prompt_tokens=prompt,
            response_lengths=tuple(length for length, _ in samples),
            advantages=tuple(advantage for _, advantage in samples),
            inputs=None,
            group=None,
            reference_logprobs=None,
        )
        for number, (prompt, samples) in enumerate(groups)
    )
    live = live_samples(made)
    tokens = sum(made[group].response_lengths[sample] for group, sample in live)
    return TrainBatch(step, made, num_samples=len(live), num_tokens=tokens)


def live_samples(groups) -> Counter:
    return Counter(
        (number, sample)
        for number, group in enumerate(groups)
        for sample, advantage in enumerate(group.advantages)
        if advantage is not None
    )


def planned_samples(plan: list[list[Microbatch]]) -> Counter:
    return Counter(
        (row.group, sample)
        for rank in plan
        for microbatch in rank
        if not microbatch.filler
        for row in microbatch.rows
        for sample in row.samples
    )


samples = st.tuples(st.integers(1, 60), st.none() | st.floats(-2, 2))
batches = (
    st.lists(
        st.tuples(st.integers(1, 80), st.lists(samples, min_size=1, max_size=8)), min_size=1, max_size=12
    )
    .map(train_batch)
    .filter(lambda batch: batch.num_samples > 0)
)
ranks, budgets = st.integers(1, 5), st.integers(1, 600)


@given(batches, ranks, budgets)
def test_every_live_sample_stands_once_and_unscored_ones_nowhere(batch, num_ranks, max_tokens):
    assert planned_samples(plan_microbatches(batch, num_ranks, max_tokens)) == live_samples(batch.groups)


@given(batches, ranks, budgets)
def test_all_ranks_have_the_same_number_of_microbatches(batch, num_ranks, max_tokens):
    plan = plan_microbatches(batch, num_ranks, max_tokens)
    assert len(plan) == num_ranks
    assert len({len(rank) for rank in plan}) == 1
    assert len(plan[0]) > 0


@given(batches, ranks, budgets)
def test_tokens_keep_the_budget_unless_one_sample_alone_exceeds_it(batch, num_ranks, max_tokens):
    for microbatch in (
        microbatch for rank in plan_microbatches(batch, num_ranks, max_tokens) for microbatch in rank
    ):
        tokens = sum(row.num_tokens for row in microbatch.rows)
        alone = len(microbatch.rows) == 1 and len(microbatch.rows[0].samples) == 1
        assert tokens <= max_tokens or alone or microbatch.filler


@given(batches, ranks, budgets)
def test_rows_count_their_prompt_once_and_their_responses(batch, num_ranks, max_tokens):
    for microbatch in (
        microbatch for rank in plan_microbatches(batch, num_ranks, max_tokens) for microbatch in rank
    ):
        for row in microbatch.rows:
            group = batch.groups[row.group]
            assert row.num_tokens == group.num_prompt_tokens + sum(
                group.response_lengths[i] for i in row.samples
            )


@given(batches, ranks, budgets)
def test_plan_is_the_same_on_every_rank_and_call(batch, num_ranks, max_tokens):
    assert plan_microbatches(batch, num_ranks, max_tokens) == plan_microbatches(batch, num_ranks, max_tokens)


@given(batches, ranks)
def test_no_rank_carries_more_than_its_share_and_one_row(batch, num_ranks):
    plan = plan_microbatches(batch, num_ranks, max_tokens=10_000)
    loads = [
        sum(row.num_tokens for microbatch in rank if not microbatch.filler for row in microbatch.rows)
        for rank in plan
    ]
    longest = max(row.num_tokens for rank in plan for microbatch in rank for row in microbatch.rows)
    assert max(loads) - min(loads) <= longest


def test_fewer_groups_than_ranks_keeps_idle_ranks_in_step_with_fillers():
    plan = plan_microbatches(train_batch([(10, [(5, 1.0), (5, -1.0)])]), num_ranks=3, max_tokens=100)
    assert [[microbatch.filler for microbatch in rank] for rank in plan] == [[False], [True], [True]]
    assert all(rank[0].rows[0].num_tokens == 20 for rank in plan)


def test_group_larger_than_the_budget_is_cut_between_samples():
    plan = plan_microbatches(
        train_batch([(10, [(20, 1.0), (20, 0.5), (20, -1.0)])]), num_ranks=1, max_tokens=50
    )
    assert sorted(row.samples for microbatch in plan[0] for row in microbatch.rows) == [(0, 1), (2,)]


def test_short_groups_share_a_microbatch():
    plan = plan_microbatches(train_batch([(10, [(10, 1.0)])] * 4), num_ranks=1, max_tokens=80)
    assert [len(microbatch.rows) for microbatch in plan[0]] == [4]


def test_groups_of_any_length_fill_a_microbatch_to_the_token():
    plan = plan_microbatches(train_batch([(10, [(50, 1.0)]), (10, [(10, 1.0)]), (5, [(5, 1.0)])]), 1, max_tokens=90)
    assert [[row.num_tokens for row in microbatch.rows] for microbatch in plan[0]] == [[60, 20, 10]]


def test_batch_without_a_live_sample_is_refused_by_step():
    with pytest.raises(ValueError, match="step 3: no sample"):
        plan_microbatches(train_batch([(10, [(5, None)])]), 1, 100)
