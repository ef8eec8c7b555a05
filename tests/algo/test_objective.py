"""The whole objective against plain loops over sequences and tokens, its gradient, any cut of the batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch

from mixed_r1_ray.algo.aggregation import BatchSize
from mixed_r1_ray.algo.objective import Objective
from mixed_r1_ray.config import AlgoConfig

LENGTHS = [3, 1, 6, 2]
ADVANTAGES = [1.2, -0.7, -1.1, 0.4]
LONGEST = 8
SIZE = BatchSize(len(LENGTHS), sum(LENGTHS), LONGEST)

FAMILY = {
    "grpo": dict(loss="grpo"),
    "grpo, dual clip, k2": dict(loss="grpo", clip_ratio_c=1.5, kl_estimator="k2"),
    "dapo": dict(loss="dapo", clip_ratio_high=0.28, beta=0.0),
    "dr_grpo": dict(loss="dr_grpo", advantage_estimator="dr_grpo", beta=0.0),
    "gspo": dict(loss="gspo", clip_ratio_low=0.03, clip_ratio_high=0.04),
    "cispo": dict(loss="cispo", cispo_ratio_max=1.3, beta=0.0),
    "k1, weighted": dict(kl_estimator="k1", use_bias_correction_kl=True, beta=0.1),
    "k3, weighted": dict(use_bias_correction_kl=True, beta=0.1),
    "token correction": dict(rollout_correction="token", rollout_correction_max=1.2),
    "sequence mask": dict(
        loss="dapo", rollout_correction="sequence", rollout_correction_mode="mask", rollout_correction_max=1.4
    ),
    "entropy": dict(loss="cispo", cispo_ratio_max=1.3, entropy_coef=0.3, beta=0.0),
}


@dataclass
class Tokens:
    """Tokens of whole responses."""

    response_lengths: torch.Tensor
    advantages: torch.Tensor
    rollout_logprobs: torch.Tensor
    reference_logprobs: torch.Tensor | None
    logprobs: torch.Tensor
    old_logprobs: torch.Tensor
    entropy: torch.Tensor

    def part(self, first: int, last: int) -> Tokens:
        """Responses first to last, without the last."""
        start, end = sum(LENGTHS[:first]), sum(LENGTHS[:last])
        cut = (None if tensor is None else tensor[start:end] for tensor in list(vars(self).values())[1:])
        return Tokens(self.response_lengths[first:last], *cut)


def tokens(algo: AlgoConfig) -> Tokens:
    generator = torch.Generator().manual_seed(3)

    def noise(scale: float) -> torch.Tensor:
        return scale * torch.randn(sum(LENGTHS), generator=generator, dtype=torch.float64)

    lengths, logprobs = torch.tensor(LENGTHS), -noise(1.0).abs() - 0.5
    return Tokens(
        response_lengths=lengths,
        advantages=torch.repeat_interleave(torch.tensor(ADVANTAGES, dtype=torch.float64), lengths),
        rollout_logprobs=logprobs + noise(0.3),
        reference_logprobs=logprobs + noise(0.5) if algo.beta > 0 else None,
        logprobs=logprobs,
        old_logprobs=logprobs + noise(0.3),
        entropy=noise(1.0).abs(),
    )


def value(algo: AlgoConfig, data: Tokens, logprobs: torch.Tensor | None = None) -> torch.Tensor:
    new = data.logprobs if logprobs is None else logprobs
    return Objective(algo)(new, data.old_logprobs, data.entropy, data, SIZE).total


def token_term(algo: AlgoConfig, new: float, old: float, advantage: float, sequence_ratio: float) -> float:
    ratio = sequence_ratio if algo.loss == "gspo" else math.exp(new - old)
    if algo.loss == "cispo":
        return -min(ratio, algo.cispo_ratio_max) * advantage * new
    clipped = max(1 - algo.clip_ratio_low, min(1 + algo.clip_ratio_high, ratio))
    loss = max(-ratio * advantage, -clipped * advantage)
    if algo.clip_ratio_c is not None and advantage < 0:
        loss = min(loss, -algo.clip_ratio_c * advantage)
    return loss


def kl_term(algo: AlgoConfig, new: float, old: float, reference: float) -> float:
    d = reference - new
    kl = {"k1": -d, "k2": d * d / 2, "k3": math.exp(d) - d - 1}[algo.kl_estimator]
    return algo.beta * kl * (math.exp(new - old) if algo.use_bias_correction_kl else 1.0)


def correction_weight(algo: AlgoConfig, token: float, sequence: float) -> float:
    if algo.rollout_correction == "none":
        return 1.0
    ratio = math.exp(token if algo.rollout_correction == "token" else sequence)
    if algo.rollout_correction_mode == "truncate":
        return min(ratio, algo.rollout_correction_max)
    return ratio if 1 / algo.rollout_correction_max <= ratio <= algo.rollout_correction_max else 0.0


def plain(algo: AlgoConfig, data: Tokens) -> float:
    """The objective as one would write it down: loops over sequences and tokens, in Python's floats."""
    total, start = 0.0, 0
    for length, advantage in zip(LENGTHS, ADVANTAGES, strict=True):
        at = range(start, start + length)
        columns = (data.logprobs, data.old_logprobs, data.rollout_logprobs)
        new, old, engine = ([column[i].item() for i in at] for column in columns)
        sequence_ratio = math.exp(sum(a - b for a, b in zip(new, old, strict=True)) / length)
        off_policy = sum(b - c for b, c in zip(old, engine, strict=True))
        losses = []
        for t in range(length):
            loss = token_term(algo, new[t], old[t], advantage, sequence_ratio)
            loss *= correction_weight(algo, old[t] - engine[t], off_policy)
            if algo.beta > 0:
                loss += kl_term(algo, new[t], old[t], data.reference_logprobs[start + t].item())
            losses.append(loss)
        if algo.loss in ("grpo", "gspo"):
            total += sum(losses) / length / len(LENGTHS)
        elif algo.loss == "dr_grpo":
            total += sum(losses) / (len(LENGTHS) * LONGEST)
        else:
            total += sum(losses) / sum(LENGTHS)
        start += length
    return total - algo.entropy_coef * data.entropy.mean().item()


@pytest.fixture(params=FAMILY)
def algo(request) -> AlgoConfig:
    """One member of the family after the other."""
    return AlgoConfig(**FAMILY[request.param])


def test_equals_plain_loops(algo):
    data = tokens(algo)
    assert value(algo, data).item() == pytest.approx(plain(algo, data), abs=1e-6)


def test_gradient_matches_finite_differences(algo):
    data, step = tokens(algo), 1e-6
    logprobs = data.logprobs.clone().requires_grad_()
    value(algo, data, logprobs).backward()
    numeric = []
    for one in torch.eye(sum(LENGTHS), dtype=torch.float64) * step:
        up, down = (value(algo, data, data.logprobs + sign * one) for sign in (1, -1))
        numeric.append((up - down).item() / (2 * step))
    if algo.loss == "cispo":  # its weight is a constant to the gradient, and moves in the value
        ratio = torch.exp(data.logprobs - data.old_logprobs).clamp(max=algo.cispo_ratio_max)
        numeric = (-ratio * data.advantages / sum(LENGTHS)).tolist()
    assert logprobs.grad.tolist() == pytest.approx(numeric, abs=1e-6)


@pytest.mark.parametrize("cuts", [[0, 1, 2, 3, 4], [0, 2, 4], [0, 3, 4]])
def test_parts_of_whole_responses_add_up_to_the_batch(algo, cuts):
    data = tokens(algo)
    parts = [value(algo, data.part(first, last)) for first, last in zip(cuts, cuts[1:], strict=False)]
    assert sum(parts).item() == pytest.approx(value(algo, data).item(), abs=1e-9)


def test_clips_and_bands_of_these_cases_hold_somewhere_and_leave_something(algo):
    """Or the tests above would not see them."""
    data = tokens(algo)
    terms = Objective(algo)(data.logprobs, data.old_logprobs, data.entropy, data, SIZE)
    assert 0 < terms.policy.clipped.float().mean() < 1
    if algo.rollout_correction != "none":
        assert 0 < terms.correction.bounded.float().mean() < 1


def test_default_objective_is_grpo_with_k3_to_the_last_bit():
    algo = AlgoConfig()
    data = tokens(algo)
    ratio = torch.exp(data.logprobs - data.old_logprobs)
    surrogate = torch.minimum(ratio * data.advantages, ratio.clamp(0.8, 1.2) * data.advantages)
    difference = data.reference_logprobs - data.logprobs
    losses = -surrogate + 0.04 * (torch.expm1(difference) - difference)
    lengths = torch.tensor(LENGTHS)
    weights = torch.repeat_interleave(1.0 / (lengths.float() * len(LENGTHS)), lengths)
    assert torch.equal(value(algo, data), (losses * weights).sum())


def test_reported_kl_is_k3_whatever_is_trained_with():
    data = tokens(AlgoConfig())
    arguments = data.logprobs, data.old_logprobs, data.entropy, data, SIZE
    first, second = (Objective(AlgoConfig(kl_estimator=name))(*arguments).kl for name in ("k2", "k3"))
    assert torch.equal(first, second) and (first > 0).all()


def test_entropy_bonus_raises_the_entropy_it_is_given():
    algo = AlgoConfig(entropy_coef=0.5, beta=0.0)
    data = tokens(algo)
    entropy = data.entropy.clone().requires_grad_()
    Objective(algo)(data.logprobs, data.old_logprobs, entropy, data, SIZE).total.backward()
    assert entropy.grad.tolist() == pytest.approx([-0.5 / sum(LENGTHS)] * sum(LENGTHS))


def test_masked_sequence_gives_no_policy_gradient_and_the_others_do_not_weigh_more():
    algo = AlgoConfig(**FAMILY["sequence mask"], beta=0.0)
    data = tokens(algo)
    logprobs = data.logprobs.clone().requires_grad_()
    terms = Objective(algo)(logprobs, data.logprobs, data.entropy, data, SIZE)
    terms.total.backward()
    assert (logprobs.grad[terms.correction.bounded] == 0).all()
    kept = ~terms.correction.bounded
    expected = -(terms.correction.weights * data.advantages / sum(LENGTHS))[kept]
    assert logprobs.grad[kept].tolist() == pytest.approx(expected.tolist(), abs=1e-7)
