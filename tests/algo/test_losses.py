"""Token losses: golden values, plain loops in float64, finite differences, and what the peers compute."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mixed_r1_ray.algo.losses import cispo_loss, grpo_loss, gspo_loss


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


def test_golden_mean_with_dual_clip():
    ratios = torch.tensor([1.5, 0.5, 1.5, 0.5, 4.0], dtype=torch.float64)
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0, -1.0], dtype=torch.float64)
    result = grpo_loss(ratios.log(), torch.zeros_like(ratios), advantages, 0.2, 0.28, clip_ratio_c=3.0)
    assert result.loss.tolist() == pytest.approx([-1.28, -0.5, 1.5, 0.8, 3.0])
    assert result.loss.mean().item() == pytest.approx(0.704)
    assert result.clipped.tolist() == [True, False, False, True, True]


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


double = dict(dtype=torch.float64)
# log-ratio, old log-prob, advantage
tokens = st.tuples(st.floats(-1.5, 1.5), st.floats(-4, 0), st.floats(-3, 3))
responses = st.lists(st.lists(tokens, min_size=1, max_size=6), min_size=1, max_size=4)
clips = st.floats(0.0001, 0.5)


def flat(batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probs, old log-probs, advantages, lengths; a response has the advantage of its first token."""
    rows = [(old + ratio, old, response[0][2]) for response in batch for ratio, old, _ in response]
    lengths = torch.tensor([len(response) for response in batch])
    return *(torch.tensor(column, **double) for column in zip(*rows)), lengths


def finite_differences(function, at: torch.Tensor, step: float = 1e-6) -> torch.Tensor:
    """Central differences of a scalar function of a vector."""
    unit = torch.eye(len(at), **double) * step
    return torch.stack([(function(at + one) - function(at - one)) / (2 * step) for one in unit])


@given(responses, clips, clips, st.floats(1.6, 5))
def test_dual_clip_equals_its_definition_and_trls_delta(batch, low, high, c):
    logprobs, old, advantages, _ = flat(batch)
    result = grpo_loss(logprobs, old, advantages, low, high, c)
    for logprob, old_logprob, advantage, loss in zip(logprobs, old, advantages, result.loss, strict=True):
        ratio = math.exp(logprob - old_logprob)
        plain = max(-ratio * advantage, -max(1 - low, min(1 + high, ratio)) * advantage)
        verl = min(plain, -c * advantage) if advantage < 0 else plain
        trl = -min(min(ratio, c) * advantage, max(1 - low, min(1 + high, ratio)) * advantage)
        assert loss.item() == pytest.approx(float(verl), abs=1e-12)
        assert loss.item() == pytest.approx(float(trl), abs=1e-12)


def test_dual_clip_ends_the_gradient_of_a_bad_tokens_runaway_ratio():
    logprobs = torch.tensor([math.log(4.0), math.log(4.0), math.log(2.5)], **double, requires_grad=True)
    advantages = torch.tensor([-1.0, 1.0, -1.0], **double)
    grpo_loss(logprobs, torch.zeros(3, **double), advantages, 0.2, 0.2, 3.0).loss.sum().backward()
    assert logprobs.grad.tolist() == pytest.approx([0.0, 0.0, 2.5])  # dual clip, clip, free


@given(responses, clips, clips)
def test_gspo_equals_a_loop_over_sequences(batch, low, high):
    logprobs, old, advantages, lengths = flat(batch)
    result = gspo_loss(logprobs, old, advantages, lengths, low, high)
    expected, clipped = [], []
    for response in batch:
        ratio = math.exp(sum(log_ratio for log_ratio, _, _ in response) / len(response))
        advantage = response[0][2]
        bounded = max(1 - low, min(1 + high, ratio))
        expected += [-min(ratio * advantage, bounded * advantage)] * len(response)
        clipped += [bounded * advantage < ratio * advantage - 1e-12] * len(response)
    assert result.loss.tolist() == pytest.approx(expected, abs=1e-9)
    assert all(held for held, should in zip(result.clipped.tolist(), clipped, strict=True) if should)


def test_gspo_gradient_matches_finite_differences():
    lengths = torch.tensor([3, 1, 4])
    advantages = torch.repeat_interleave(torch.tensor([1.0, -0.6, 0.8], **double), lengths)
    at = torch.tensor([-0.30, -1.20, -0.51, -0.70, -0.10, -2.0, -0.9, -0.4], **double)
    old = at - torch.tensor([0.02, -0.01, 0.03, 0.05, 0.4, 0.5, 0.3, 0.6], **double)  # the last is clipped
    weights = torch.linspace(0.5, 1.5, 8, **double)

    def total(values: torch.Tensor) -> torch.Tensor:
        return (gspo_loss(values, old, advantages, lengths, 0.1, 0.1).loss * weights).sum()

    logprobs = at.clone().requires_grad_()
    total(logprobs).backward()
    assert logprobs.grad.tolist() == pytest.approx(finite_differences(total, at).tolist(), abs=1e-6)
    assert logprobs.grad[4:].tolist() == [0.0] * 4
    assert len(set(logprobs.grad[:3].tolist())) == 1  # every token moves the one ratio of its sequence alike


def test_gspo_gives_verls_token_form_the_same_gradient_under_token_means():
    lengths = torch.tensor([3, 2])
    old = torch.tensor([-0.3, -1.2, -0.5, -0.7, -0.1], **double)
    advantages = torch.repeat_interleave(torch.tensor([1.0, -0.6], **double), lengths)
    weights = torch.repeat_interleave(1.0 / (lengths * 2.0), lengths)
    ours, theirs = (
        (old + torch.tensor([0.02, -0.01, 0.03, 0.05, -0.2], **double)).requires_grad_() for _ in range(2)
    )
    (gspo_loss(ours, old, advantages, lengths, 0.3, 0.3).loss * weights).sum().backward()
    total = 0.0
    for part in (slice(0, 3), slice(3, 5)):
        mean = (theirs[part] - old[part]).mean().detach()
        ratio = torch.exp(mean + theirs[part] - theirs[part].detach())
        total = total - (torch.minimum(ratio, ratio.clamp(0.7, 1.3)) * advantages[part] * weights[part]).sum()
    total.backward()
    assert ours.grad.tolist() == pytest.approx(theirs.grad.tolist(), abs=1e-12)


@given(responses, st.floats(1.0, 4))
def test_cispo_equals_its_definition(batch, cap):
    logprobs, old, advantages, _ = flat(batch)
    result = cispo_loss(logprobs, old, advantages, cap)
    ratios = [math.exp(a - b) for a, b in zip(logprobs, old, strict=True)]
    rows = zip(ratios, advantages.tolist(), logprobs.tolist(), strict=True)
    expected = [-min(ratio, cap) * advantage * logprob for ratio, advantage, logprob in rows]
    assert result.loss.tolist() == pytest.approx(expected, abs=1e-12)
    assert result.clipped.tolist() == [ratio > cap for ratio in ratios]


def test_cispo_caps_the_weight_and_keeps_every_tokens_gradient():
    logprobs = torch.tensor([math.log(8.0), math.log(0.1), 0.0], **double, requires_grad=True)
    advantages = torch.tensor([0.5, -2.0, 1.0], **double)
    cispo_loss(logprobs, torch.zeros(3, **double), advantages, 5.0).loss.sum().backward()
    assert logprobs.grad.tolist() == pytest.approx([-5.0 * 0.5, 0.1 * 2.0, -1.0])


@pytest.mark.parametrize("advantage", [1.0, 0.0, -1.0])
def test_no_ratio_is_too_far_for_a_finite_loss_and_gradient(advantage):
    logprobs = torch.tensor([0.0, -1e4], requires_grad=True)
    old, advantages, lengths = torch.tensor([-1e4, 0.0]), torch.full((2,), advantage), torch.tensor([1, 1])
    for result in (
        grpo_loss(logprobs, old, advantages, 0.2, 0.2),
        gspo_loss(logprobs, old, advantages, lengths, 3e-4, 4e-4),
        cispo_loss(logprobs, old, advantages, 5.0),
    ):
        (gradient,) = torch.autograd.grad(result.loss.sum(), logprobs)
        assert torch.isfinite(result.loss).all() and torch.isfinite(gradient).all()


def test_on_policy_all_losses_have_the_policy_gradient():
    lengths = torch.tensor([2, 3])
    advantages = torch.repeat_interleave(torch.tensor([0.5, -1.5]), lengths)
    logprobs = torch.tensor([-0.3, -2.0, -7.0, -0.1, -1.0], requires_grad=True)
    old = logprobs.detach()
    for result in (
        grpo_loss(logprobs, old, advantages, 0.2, 0.2, 3.0),
        gspo_loss(logprobs, old, advantages, lengths, 3e-4, 4e-4),
        cispo_loss(logprobs, old, advantages, 5.0),
    ):
        (gradient,) = torch.autograd.grad(result.loss.sum(), logprobs)
        assert gradient.tolist() == pytest.approx((-advantages).tolist())
        assert not result.clipped.any()
