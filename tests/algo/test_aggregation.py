"""Aggregation: golden values, plain loops, and the same number however the batch is cut."""

from __future__ import annotations

from typing import get_args, get_type_hints

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mixed_r1_ray.algo.aggregation import (
    AGGREGATIONS,
    BatchSize,
    sequence_mean_token_mean,
    sequence_mean_token_sum_norm,
    token_mean,
)
from mixed_r1_ray.config import AlgoConfig

LONGEST = 60
# [[1, 2, 3], [4, 5, 6], [7, 8, 9]] under the mask [[1, 1, 0], [1, 1, 1], [0, 0, 0]]
LOSSES = [[1.0, 2.0], [4.0, 5.0, 6.0]]


def size_of(lengths: list[int]) -> BatchSize:
    return BatchSize(len(lengths), sum(lengths), LONGEST)


def total(aggregate, losses: list[list[float]]) -> float:
    lengths = [len(response) for response in losses]
    weights = aggregate(torch.tensor(lengths), size_of(lengths))
    return (torch.tensor([loss for response in losses for loss in response]) * weights).sum().item()


def test_golden_token_mean():
    assert total(token_mean, LOSSES) == pytest.approx(3.6)


def test_golden_mean_over_live_sequences_of_token_means():
    assert total(sequence_mean_token_mean, LOSSES) == pytest.approx(3.25)


def test_dr_grpo_divides_the_sum_by_samples_times_the_longest_response():
    assert total(sequence_mean_token_sum_norm, LOSSES) == pytest.approx(18 / (2 * LONGEST))


@given(st.lists(st.lists(st.floats(-5, 5), min_size=1, max_size=LONGEST), min_size=1, max_size=8))
def test_equal_plain_loops(losses):
    sequences = [sum(response) / len(response) for response in losses]
    everything = [loss for response in losses for loss in response]
    expected = {
        "grpo": sum(sequences) / len(losses),
        "gspo": sum(sequences) / len(losses),
        "dapo": sum(everything) / len(everything),
        "cispo": sum(everything) / len(everything),
        "dr_grpo": sum(everything) / (len(losses) * LONGEST),
    }
    for name, aggregate in AGGREGATIONS.items():
        assert total(aggregate, losses) == pytest.approx(expected[name], abs=1e-5)


@pytest.mark.parametrize("name", AGGREGATIONS)
@given(st.lists(st.integers(1, LONGEST), min_size=1, max_size=20), st.data())
def test_weights_are_the_same_whatever_the_cut(name, lengths, data):
    aggregate, size = AGGREGATIONS[name], size_of(lengths)
    whole = aggregate(torch.tensor(lengths), size)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(lengths)))) | {0, len(lengths)})
    pairs = zip(cuts, cuts[1:], strict=False)
    parts = [aggregate(torch.tensor(lengths[first:last]), size) for first, last in pairs]
    assert torch.equal(torch.cat(parts), whole)
    assert len(whole) == sum(lengths)
    if name != "dr_grpo":
        assert whole.double().sum().item() == pytest.approx(1.0, abs=1e-5)


def test_every_configurable_loss_has_an_aggregation():
    assert set(AGGREGATIONS) == set(get_args(get_type_hints(AlgoConfig)["loss"]))
