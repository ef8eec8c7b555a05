"""Global batches that are made once and then learned from in every way; and the plain way to learn from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import ray
import torch
from plain_forward import plain_logprobs

from mixed_r1_ray.config import Config, ModelConfig
from mixed_r1_ray.policy.loading import load_policy
from mixed_r1_ray.types import Group, PromptInputs, Rollout, TrainBatch, TrainGroup

TEMPERATURE, BETA, BETAS, MAX_GRAD_NORM = 0.8, 0.04, (0.9, 0.95), 1.0
PICTURES = [[(112, 112)], [], [(60, 100), (112, 40)], [(57, 90)]]  # (width, height), a list a group
GROUP_SIZE = 4


@dataclass(frozen=True)
class RecordedGroup:
    """Log-probabilities are the starting policy's, of engine and reference alike."""

    inputs: PromptInputs
    responses: list[np.ndarray]
    advantages: list[float | None]
    logprobs: list[np.ndarray]


def configuration(path: str, **learner) -> Config:
    config = Config()
    config.model.path = path
    config.rollout.temperature = TEMPERATURE
    config.algo.beta = BETA
    config.learner.learning_rate = 5e-5
    config.learner.max_grad_norm = MAX_GRAD_NORM
    config.guard.max_logprob_mismatch = 100.0  # the batches stay, the policy moves on
    for name, value in learner.items():
        setattr(config.learner, name, value)
    return config


def record(path: str, num_batches: int = 5) -> list[list[RecordedGroup]]:
    """Groups with one, no and several pictures of several sizes; lengths differ; one sample has no advantage."""
    policy = load_policy(ModelConfig(path=path), TEMPERATURE).eval()
    adapter, random = policy.adapter, np.random.default_rng(3)
    ordinary = sorted(set(range(len(adapter.tokenizer))) - set(adapter.banned_token_ids))
    batches = []
    for number in range(num_batches):
        groups = []
        for sizes in PICTURES:
            images = [random.integers(0, 255, (height, width, 3), dtype=np.uint8) for width, height in sizes]
            text = adapter.prompt_text("Where is the red circle?" + " a" * len(groups), len(images))
            inputs = adapter.encode(text, images)
            responses = [random.choice(ordinary, n).astype(np.int32) for n in random.integers(2, 12, GROUP_SIZE)]
            advantages: list[float | None] = random.normal(size=GROUP_SIZE).tolist()
            if number == 1 and not groups:
                advantages[2] = None
            with torch.no_grad():
                logprobs = [plain_logprobs(policy, inputs, response).numpy() for response in responses]
            groups.append(RecordedGroup(inputs, responses, advantages, logprobs))
        batches.append(groups)
    return batches


def in_store(batch: Sequence[RecordedGroup], step: int) -> TrainBatch:
    """As the driver hands it to learners."""
    groups = tuple(
        TrainGroup(
            prompt_id=f"p{number}",
            num_prompt_tokens=len(group.inputs.input_ids),
            response_lengths=tuple(map(len, group.responses)),
            advantages=tuple(group.advantages),
            inputs=ray.put(group.inputs),
            group=ray.put(_as_group(f"p{number}", group, version=step - 1)),
            reference_logprobs=ray.put(tuple(group.logprobs)),
        )
        for number, group in enumerate(batch)
    )
    live = [len(response) for response, _ in _live(batch)]
    return TrainBatch(step, groups, num_samples=len(live), num_tokens=sum(live))


def _as_group(prompt_id: str, group: RecordedGroup, version: int) -> Group:
    rollouts = tuple(
        Rollout(number, response, logprobs, np.full(len(response), version, np.int32), "", True)
        for number, (response, logprobs) in enumerate(zip(group.responses, group.logprobs, strict=True))
    )
    return Group(prompt_id, group.inputs.input_ids.astype(np.int32), rollouts)


def _live(batch: Sequence[RecordedGroup]) -> list[tuple[np.ndarray, float]]:
    pairs = (pair for group in batch for pair in zip(group.responses, group.advantages, strict=True))
    return [(response, advantage) for response, advantage in pairs if advantage is not None]


def plain_trajectory(config: Config, batches: Sequence[Sequence[RecordedGroup]]) -> dict[str, torch.Tensor]:
    """Parameters after a step on each batch: one forward a sample, GRPO's loss written out, torch's AdamW."""
    policy = load_policy(config.model, TEMPERATURE).eval()
    parameters = list(policy.model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=config.learner.learning_rate, betas=BETAS, weight_decay=0.0)
    for batch in batches:
        optimizer.zero_grad()
        num_samples = len(_live(batch))
        for group in batch:
            for response, advantage, reference in zip(group.responses, group.advantages, group.logprobs, strict=True):
                if advantage is None:
                    continue
                logprobs = plain_logprobs(policy, group.inputs, response)
                away = torch.from_numpy(reference) - logprobs
                loss = BETA * (away.exp() - away - 1) - advantage * (logprobs - logprobs.detach()).exp()
                (loss.mean() / num_samples).backward()
        torch.nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)
        optimizer.step()
    return {name: parameter.detach().clone() for name, parameter in policy.model.named_parameters()}
