"""Every loss through the real packed forward: whichever way a batch is cut, parameters get one gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from mixed_r1_ray.algo.aggregation import BatchSize
from mixed_r1_ray.algo.objective import Objective
from mixed_r1_ray.config import AlgoConfig, ModelConfig
from mixed_r1_ray.policy.loading import load_policy
from mixed_r1_ray.policy.logprobs import PolicyModel
from mixed_r1_ray.policy.packing import pack
from mixed_r1_ray.types import PromptInputs

LENGTHS = [[3, 7, 1], [5], [2, 4]]  # of the responses of three groups
SAMPLES = [(group, sample) for group, lengths in enumerate(LENGTHS) for sample in range(len(lengths))]
SIZE = BatchSize(len(SAMPLES), sum(map(sum, LENGTHS)), 8)

FAMILY = {
    "grpo": dict(clip_ratio_c=1.5),
    "dapo": dict(loss="dapo", clip_ratio_high=0.28, entropy_coef=0.1),
    "dr_grpo": dict(loss="dr_grpo", kl_estimator="k2"),
    "gspo": dict(loss="gspo", clip_ratio_low=0.1, clip_ratio_high=0.1, rollout_correction="sequence"),
    "cispo": dict(loss="cispo", rollout_correction="token", rollout_correction_mode="mask"),
}


@dataclass
class Tokens:
    """What tokens come with, besides the policy's own numbers."""

    response_lengths: torch.Tensor
    advantages: torch.Tensor
    rollout_logprobs: torch.Tensor
    reference_logprobs: torch.Tensor


@dataclass
class Batch:
    """A policy, prompts, responses, and the other policies' log-probabilities of every response."""

    policy: PolicyModel
    prompts: list[PromptInputs]
    responses: list[list[np.ndarray]]
    others: dict[tuple[int, int], list[torch.Tensor]]  # old, engine, reference


@pytest.fixture(scope="module")
def batch(tiny_checkpoints) -> Batch:
    """Three groups, with one, no and two pictures."""
    torch.manual_seed(0)
    policy = load_policy(ModelConfig(path=tiny_checkpoints["internvl"]), 1.0).eval()
    policy.entropy_gradient = True
    adapter, random = policy.adapter, np.random.default_rng(0)
    ordinary = sorted(set(range(len(adapter.tokenizer))) - set(adapter.banned_token_ids))
    prompts = []
    for pictures in (1, 0, 2):
        images = [random.integers(0, 255, (112, 112, 3), dtype=np.uint8) for _ in range(pictures)]
        prompts.append(adapter.encode(adapter.prompt_text("Where is the red circle?", pictures), images))
    responses = [[random.choice(ordinary, n).astype(np.int32) for n in lengths] for lengths in LENGTHS]
    with torch.no_grad():
        packed = pack(prompts, responses, adapter, policy.model)
        parts = policy(packed)[0].split(packed.response_lengths.tolist())
    others = {
        sample: [part + 0.2 * torch.randn(len(part)) for _ in range(3)]
        for sample, part in zip(SAMPLES, parts, strict=True)
    }
    return Batch(policy, prompts, responses, others)


def gradient(batch: Batch, algo: AlgoConfig, cut: list[list[tuple[int, int]]]) -> dict[str, torch.Tensor]:
    """Of the sum over microbatches, each a list of (group, sample) in order, by parameter."""
    policy = batch.policy
    policy.zero_grad()
    for samples in cut:
        groups = sorted({group for group, _ in samples})
        rows = [[batch.responses[group][s] for g, s in samples if g == group] for group in groups]
        packed = pack([batch.prompts[group] for group in groups], rows, policy.adapter, policy.model)
        logprobs, entropy = policy(packed)
        old, engine, reference = (torch.cat(part) for part in zip(*(batch.others[one] for one in samples)))
        advantages = torch.tensor([1.0 - 0.7 * (g + 2 * s) for g, s in samples])
        lengths = packed.response_lengths
        tokens = Tokens(lengths, torch.repeat_interleave(advantages, lengths), engine, reference)
        Objective(algo)(logprobs, old, entropy, tokens, SIZE).total.backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in policy.model.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("name", FAMILY)
def test_gradient_is_the_same_whatever_the_microbatches(batch, name):
    algo = AlgoConfig(**FAMILY[name])
    whole = gradient(batch, algo, [SAMPLES])
    assert max(part.abs().max() for part in whole.values()) > 1e-3
    for cut in ([[one] for one in SAMPLES], [SAMPLES[:2], SAMPLES[2:]], [SAMPLES[3:], SAMPLES[:3]]):
        parts = gradient(batch, algo, cut)
        assert parts.keys() == whole.keys()
        for parameter, expected in whole.items():
            torch.testing.assert_close(parts[parameter], expected, atol=1e-5, rtol=1e-4, msg=parameter)
