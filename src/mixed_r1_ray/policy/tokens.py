"""What the learner knows of a microbatch's tokens, in the order in which `packing.pack` lays them out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import ray
import torch

from mixed_r1_ray.policy.microbatches import Microbatch
from mixed_r1_ray.types import Group, PromptInputs, TrainBatch, TrainGroup

SampleKey = tuple[str, int]  # prompt id, and which of its responses


@dataclass(frozen=True, slots=True)
class GroupContent:
    """What a TrainGroup refers to."""

    inputs: PromptInputs
    group: Group
    reference_logprobs: tuple[np.ndarray, ...] | None


@dataclass(frozen=True, slots=True)
class TokenTensors:
    """N tokens of S whole responses, one behind the other: (N,) each but for the lengths, (S,)."""

    prompts: list[PromptInputs]
    responses: list[list[np.ndarray]]
    samples: list[SampleKey]  # one a response
    response_lengths: torch.Tensor
    advantages: torch.Tensor
    rollout_logprobs: torch.Tensor
    weight_versions: torch.Tensor  # that the engine had
    reference_logprobs: torch.Tensor | None

    @classmethod
    def of(
        cls, microbatch: Microbatch, batch: TrainBatch, contents: Mapping[str, GroupContent]
    ) -> TokenTensors:
        prompts, responses, samples, advantages, rollout, versions, reference = [], [], [], [], [], [], []
        for row in microbatch.rows:
            group = batch.groups[row.group]
            content = contents[group.prompt_id]
            rollouts = [content.group.rollouts[sample] for sample in row.samples]
            prompts.append(content.inputs)
            responses.append([rollout_.token_ids for rollout_ in rollouts])
            samples.extend((group.prompt_id, sample) for sample in row.samples)
            advantages.extend(group.advantages[sample] for sample in row.samples)
            rollout.extend(rollout_.logprobs for rollout_ in rollouts)
            versions.extend(rollout_.weight_versions for rollout_ in rollouts)
            if content.reference_logprobs is not None:
                reference.extend(content.reference_logprobs[sample] for sample in row.samples)
        lengths = torch.tensor([len(response) for row in responses for response in row])
        return cls(
            prompts=prompts,
            responses=responses,
            samples=samples,
            response_lengths=lengths,
            advantages=torch.repeat_interleave(torch.tensor(advantages, dtype=torch.float32), lengths),
            rollout_logprobs=torch.from_numpy(np.concatenate(rollout)),
            weight_versions=torch.from_numpy(np.concatenate(versions)),
            reference_logprobs=torch.from_numpy(np.concatenate(reference)) if reference else None,
        )

    def by_sample(self, values: torch.Tensor) -> dict[SampleKey, torch.Tensor]:
        """(N,) values cut into responses, each a CPU tensor of its own: a view would be sent with all the others."""
        parts = values.split(self.response_lengths.tolist())
        return {sample: part.to("cpu", copy=True) for sample, part in zip(self.samples, parts, strict=True)}


def fetch_contents(batch: TrainBatch, plan: Iterable[Microbatch]) -> dict[str, GroupContent]:
    """The groups that `plan` computes on, out of the object store, by prompt id."""
    needed = sorted({row.group for microbatch in plan for row in microbatch.rows})
    groups: Sequence[TrainGroup] = [batch.groups[index] for index in needed]
    references = [group.reference_logprobs for group in groups if group.reference_logprobs is not None]
    arrived = ray.get([group.inputs for group in groups] + [group.group for group in groups] + references)
    inputs, contents = arrived[: len(groups)], arrived[len(groups) : 2 * len(groups)]
    reference_logprobs = arrived[2 * len(groups) :] or [None] * len(groups)
    return {
        group.prompt_id: GroupContent(*parts)
        for group, parts in zip(groups, zip(inputs, contents, reference_logprobs, strict=True), strict=True)
    }
