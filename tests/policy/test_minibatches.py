"""Cutting a batch into the batches of its optimizer steps, for random batches."""

from __future__ import annotations

from collections import Counter

from hypothesis import assume, given
from hypothesis import strategies as st

from mixed_r1_ray.policy.minibatches import cut_minibatches
from mixed_r1_ray.types import TrainBatch, TrainGroup


def group(number: int, lengths: tuple[int, ...], advantages: tuple[float | None, ...]) -> TrainGroup:
    return TrainGroup(f"p{number}", 5, lengths, advantages, inputs=None, group=None, reference_logprobs=None)


@st.composite
def batches(draw) -> TrainBatch:
    samples = st.lists(st.tuples(st.integers(1, 9), st.none() | st.floats(-2, 2)), min_size=1, max_size=4)
    groups = draw(st.lists(samples, min_size=1, max_size=12))
    made = [group(number, *map(tuple, zip(*rows, strict=True))) for number, rows in enumerate(groups)]
    batch = TrainBatch.of(draw(st.integers(1, 50)), made)
    assume(batch.num_samples > 0)  # the driver refuses any other
    return batch


def live(batch: TrainBatch) -> list[str]:
    return [one.prompt_id for one in batch.groups if set(one.advantages) != {None}]


@given(batches(), st.integers(2, 6), st.integers(1, 3), st.integers(0, 99))
def test_every_epoch_has_each_live_group_once_and_no_other(batch, num_minibatches, num_epochs, seed):
    cut = cut_minibatches(batch, num_minibatches, num_epochs, seed)
    assert len(cut) == num_epochs * min(num_minibatches, len(live(batch)))
    for start in range(0, len(cut), len(cut) // num_epochs):
        epoch = cut[start : start + len(cut) // num_epochs]
        assert Counter(one.prompt_id for part in epoch for one in part.groups) == Counter(live(batch))


@given(batches(), st.integers(2, 6), st.integers(0, 99))
def test_sizes_differ_by_a_group_at_most_and_are_counted_anew(batch, num_minibatches, seed):
    cut = cut_minibatches(batch, num_minibatches, 1, seed)
    sizes = [len(part.groups) for part in cut]
    assert max(sizes) - min(sizes) <= 1
    assert sum(part.num_samples for part in cut) == batch.num_samples
    assert sum(part.num_tokens for part in cut) == batch.num_tokens
    assert all(part.num_samples > 0 and part.step == batch.step for part in cut)


@given(batches(), st.integers(1, 3))
def test_one_minibatch_is_the_batch_itself(batch, num_epochs):
    assert all(part is batch for part in cut_minibatches(batch, 1, num_epochs, seed=0))


def test_groups_are_shuffled_anew_by_epoch_step_and_seed_and_alike_every_time():
    def cut(step: int, seed: int) -> list[tuple[str, ...]]:
        batch = TrainBatch.of(step, [group(number, (1,), (1.0,)) for number in range(16)])
        return [tuple(one.prompt_id for one in part.groups) for part in cut_minibatches(batch, 2, 2, seed)]

    assert cut(1, 0) == cut(1, 0)
    firsts = [part for step, seed in ((1, 0), (2, 0), (1, 1)) for part in cut(step, seed)[::2]]
    assert len(set(firsts)) == len(firsts) == 6
