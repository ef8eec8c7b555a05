"""GRPO's token loss and aggregation: golden values, a plain formula, finite differences, any cut of the batch."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mixed_r1_ray.algo.losses import RECIPES, grpo_loss, sequence_mean_token_mean


def token_loss(ratio: float, advantage: float, low: float = 0.2, high: float = 0.2):
    logprob = torch.tensor([math.log(ratio)], dtype=torch.float64)
    return grpo_loss(
        logprob,
        torch.zeros(1, dtype=torch.float64),
        torch.tensor([advantage], dtype=torch.float64),
        low,
        high,
    )


def test_golden_ratios_with_asymmetric_clip():
    ratios = torch.tensor([1.5, 0.5, 1.5, 0.5, 4.0], dtype=torch.float64)
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0, -1.0], dtype=torch.float64)
    result = grpo_loss(ratios.log(), torch.zeros_like(ratios), advantages, 0.2, 0.28)
    assert result.loss.tolist() == pytest.approx([-1.28, -0.5, 1.5, 0.8, 4.0])
    assert result.clipped.tolist() == [True, False, False, True, False]
    dual_clipped = result.loss.clamp(max=3.0)  # the peers' golden mean was taken with dual clip 3
    assert dual_clipped.mean().item() == pytest.approx(0.704)


@given(st.floats(0.1, 5), st.floats(-3, 3), st.floats(0.05, 0.5), st.floats(0.05, 0.5))
def test_equals_the_definition(ratio, advantage, low, high):
    clipped_ratio = max(1 - low, min(1 + high, ratio))
    expected = -min(ratio * advantage, clipped_ratio * advantage)
    assert token_loss(ratio, advantage, low, high).loss.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("advantage", [1.3, -0.7])
@pytest.mark.parametrize("ratio", [0.5, 0.81, 1.0, 1.19, 1.7])
def test_gradient_matches_finite_differences_and_is_zero_where_clipped(ratio, advantage):
    logprob = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
    advantages = torch.tensor([advantage], dtype=torch.float64)
    result = grpo_loss(logprob, torch.zeros(1, dtype=torch.float64), advantages, 0.2, 0.2)
    result.loss.sum().backward()
    step = 1e-6
    up, down = (token_loss(ratio * math.exp(sign * step), advantage).loss.item() for sign in (1, -1))
    assert logprob.grad.item() == pytest.approx((up - down) / (2 * step), abs=1e-6)
    assert bool(result.clipped) is (logprob.grad.item() == 0.0)


def test_on_policy_gradient_is_minus_the_advantage():
    logprobs = torch.tensor([-0.3, -2.0, -7.0], requires_grad=True)
    advantages = torch.tensor([0.5, -1.0, 0.0])
    result = grpo_loss(logprobs, logprobs.detach(), advantages, 0.2, 0.2)
    result.loss.sum().backward()
    assert torch.equal(logprobs.grad, -advantages)
    assert not result.clipped.any()


def test_golden_aggregation_is_the_mean_over_sequences_of_token_means():
    losses = torch.tensor(
        [1.0, 2.0, 4.0, 5.0, 6.0]
    )  # [[1, 2, 3], [4, 5, 6]] under mask [[1, 1, 0], [1, 1, 1]]
    weights = sequence_mean_token_mean(torch.tensor([2, 3]), num_samples=2)
    assert (losses * weights).sum().item() == pytest.approx(3.25)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.data())
def test_weights_sum_to_one_and_are_the_same_whatever_the_cut(lengths, data):
    whole = sequence_mean_token_mean(torch.tensor(lengths), len(lengths))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(lengths)))) | {0, len(lengths)})
    parts = [
        sequence_mean_token_mean(torch.tensor(lengths[first:last]), len(lengths))
        for first, last in zip(cuts, cuts[1:], strict=False)
    ]
    assert torch.equal(torch.cat(parts), whole)
    assert len(whole) == sum(lengths)
    assert whole.double().sum().item() == pytest.approx(1.0, abs=1e-5)


def test_every_configurable_loss_has_a_recipe():
    from typing import get_args, get_type_hints

    from mixed_r1_ray.config import AlgoConfig

    assert set(RECIPES) == set(get_args(get_type_hints(AlgoConfig)["loss"]))
