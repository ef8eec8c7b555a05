"""The parts of a step alone, as one would write them without this project: one process, no Ray, no DeepSpeed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from plain_generation import PlainGeneration

from mixed_r1_ray.config import Config
from mixed_r1_ray.types import Group, PromptInputs, RewardBreakdown

SAMPLES_PER_FORWARD = 64


@dataclass(frozen=True)
class PlainStep:
    """Seconds of each part, and the lengths that were generated: prompt id -> tokens of each response."""

    seconds: dict[str, float]
    cpu_seconds: dict[str, float]
    lengths: dict[str, tuple[int, ...]]


def serve_parts(receive: Callable, send: Callable, config: Config, train_data: str) -> None:
    """Answers each (step, rows) with a PlainStep: the same prompts, seeds and weights as the loop's step."""
    parts = _Parts(config, train_data)
    send("ready")
    while True:
        step, rows = receive()
        send(parts.run(step, rows))


class _Parts:
    def __init__(self, config: Config, train_data: str):
        from mixed_r1_ray.rewards import EmbeddingTable

        self.config = config
        self.generation = PlainGeneration(config, train_data)
        self.embeddings = EmbeddingTable.from_checkpoint(config.model.path)
        self.policy = PlainModel(config)
        self.reference = PlainModel(config)
        self.packed = _PackedModel(config)

    def run(self, step: int, rows: Sequence[int]) -> PlainStep:
        from mixed_r1_ray.algo.advantages import group_advantages

        prepared = self.generation.prepare(rows)
        inputs = [one.inputs for one in prepared]
        clock = _Clock()
        with clock("generate", self.config.rollout.threads):
            groups = self.generation.generate(prepared, step)
        with clock("reward", 1):
            rewards = self._score(prepared, groups)
        with clock("reference", self.config.reference.threads):
            reference = self.reference.logprobs(inputs, groups)
        advantages = group_advantages(
            [tuple(reward.total for reward in group) for group in rewards], self.config.algo.scale_rewards, 0.0
        )
        with clock("learn", self.config.learner.threads):
            self.policy.update(inputs, groups, advantages, reference)
        with clock("packed reference", self.config.reference.threads):
            self.packed.logprobs(inputs, groups)
        with clock("packed learn", self.config.learner.threads):
            self.packed.update(inputs, groups, advantages)
        return PlainStep(
            clock.seconds,
            clock.cpu_seconds,
            {group.prompt_id: tuple(len(rollout.token_ids) for rollout in group.rollouts) for group in groups},
        )

    def _score(self, prepared: Sequence, groups: Sequence[Group]) -> list[list[RewardBreakdown]]:
        from mixed_r1_ray.rewards import RewardRequest, score_batch

        requests = [
            RewardRequest(
                reward_type=one.prompt.reward_type,
                response=rollout.text,
                gold=one.prompt.answer,
                question=one.prompt.question,
                choices=one.prompt.choices,
                image_size=one.prompt.image_sizes[0] if one.prompt.image_sizes else None,
                box_frame=one.prompt.box_frame,
            )
            for one, group in zip(prepared, groups, strict=True)
            for rollout in group.rollouts
        ]
        scores = iter(score_batch(requests, embeddings=self.embeddings))
        return [[next(scores) for _ in group.rollouts] for group in groups]


class PlainModel:
    """transformers and torch.optim.AdamW on padded batches: prompts padded left, responses right, a picture a sample."""

    def __init__(self, config: Config):
        import torch
        from transformers import AutoModelForImageTextToText, AutoTokenizer

        self.config = config
        self.model = AutoModelForImageTextToText.from_pretrained(config.model.path, dtype=torch.float32).eval()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=config.learner.learning_rate)
        self.pad = AutoTokenizer.from_pretrained(config.model.path).pad_token_id or 0

    def logprobs(self, inputs: Sequence[PromptInputs], groups: Sequence[Group]) -> list:
        """Log-probabilities (B, C) and their mask, a batch of at most SAMPLES_PER_FORWARD samples at a time."""
        import torch

        with torch.no_grad():
            return [self._forward(batch)[0] for batch in _batches(inputs, groups)]

    def update(self, inputs, groups, advantages, reference) -> None:
        """One optimizer step on the GRPO loss."""
        import torch

        from mixed_r1_ray.algo.kl import k3

        scores = torch.tensor([advantage for group in advantages for advantage in group])
        for number, batch in enumerate(_batches(inputs, groups)):
            logprobs, mask = self._forward(batch)
            advantage = scores[number * SAMPLES_PER_FORWARD :][: len(batch), None]
            ratio = (logprobs - logprobs.detach()).exp()
            clipped = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
            token_loss = self.config.algo.beta * k3(logprobs, reference[number]) - clipped
            ((token_loss * mask).sum(1) / mask.sum(1)).sum().div(len(scores)).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.learner.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _forward(self, batch: Sequence[tuple[PromptInputs, np.ndarray]]):
        import torch

        prompts = [torch.as_tensor(np.array(prompt.input_ids)) for prompt, _ in batch]
        responses = [torch.as_tensor(response.astype(np.int64)) for _, response in batch]
        left = {"batch_first": True, "padding_side": "left"}
        stacked = torch.nn.utils.rnn.pad_sequence
        targets = stacked(responses, batch_first=True, padding_value=self.pad)
        mask = stacked([torch.ones(len(response)) for response in responses], batch_first=True)
        input_ids = torch.cat([stacked(prompts, padding_value=self.pad, **left), targets], dim=1)
        asked = stacked([torch.ones(len(prompt)) for prompt in prompts], **left)
        names = batch[0][0].pixels
        pixels = {name: torch.from_numpy(np.concatenate([prompt.pixels[name] for prompt, _ in batch])) for name in names}
        logits = self.model(
            input_ids=input_ids,
            attention_mask=torch.cat([asked, mask], dim=1).long(),
            logits_to_keep=targets.shape[1] + 1,
            **pixels,
        ).logits[:, :-1]
        logprobs = torch.log_softmax(logits / self.config.rollout.temperature, dim=-1)
        return logprobs.gather(2, targets.unsqueeze(2)).squeeze(2), mask


class _PackedModel:
    """This project's forward and backward, without DeepSpeed and Ray around it."""

    def __init__(self, config: Config):
        from mixed_r1_ray.policy.loading import load_policy

        self.config = config
        self.policy = load_policy(config.model, config.rollout.temperature).eval()

    def logprobs(self, inputs: Sequence[PromptInputs], groups: Sequence[Group]) -> None:
        """Log-probabilities, a group at a time as the reference worker makes them."""
        import torch

        with torch.inference_mode():
            for row in range(len(groups)):
                self._forward(inputs, groups, [row])

    def update(self, inputs: Sequence[PromptInputs], groups: Sequence[Group], advantages) -> None:
        """A policy gradient; what the GRPO loss adds on (N,) tensors is nothing to its cost."""
        import torch

        rows = sorted(range(len(groups)), key=lambda row: -_num_tokens(inputs[row], groups[row]))
        while rows:
            width = _num_tokens(inputs[rows[0]], groups[rows[0]])
            number = max(1, self.config.learner.microbatch_tokens // width)
            taken, rows = rows[:number], rows[number:]
            logprobs, lengths = self._forward(inputs, groups, taken)
            scores = torch.tensor([advantage for row in taken for advantage in advantages[row]])
            (logprobs * torch.repeat_interleave(scores, lengths)).sum().backward()
        self.policy.zero_grad()

    def _forward(self, inputs: Sequence[PromptInputs], groups: Sequence[Group], rows: Sequence[int]):
        from mixed_r1_ray.policy.packing import pack

        responses = [[rollout.token_ids for rollout in groups[row].rollouts] for row in rows]
        packed = pack([inputs[row] for row in rows], responses, self.policy.adapter, self.policy.model)
        return self.policy(packed)[0], packed.response_lengths


def _batches(inputs: Sequence[PromptInputs], groups: Sequence[Group]) -> list[list[tuple[PromptInputs, np.ndarray]]]:
    samples = [
        (prompt, rollout.token_ids)
        for prompt, group in zip(inputs, groups, strict=True)
        for rollout in group.rollouts
    ]
    return [samples[start : start + SAMPLES_PER_FORWARD] for start in range(0, len(samples), SAMPLES_PER_FORWARD)]


def _num_tokens(prompt: PromptInputs, group: Group) -> int:
    return len(prompt.input_ids) + sum(len(rollout.token_ids) for rollout in group.rollouts)


class _Clock:
    """Times named parts, each with as many threads as the loop's actor for it has."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}

    def __call__(self, name: str, threads: int) -> _Clock:
        import torch

        torch.set_num_threads(threads)
        self._name = name
        return self

    def __enter__(self) -> None:
        self._begun, self._cpu_begun = time.perf_counter(), time.process_time()

    def __exit__(self, *_) -> None:
        self.seconds[self._name] = time.perf_counter() - self._begun
        self.cpu_seconds[self._name] = time.process_time() - self._cpu_begun
