"""Reads log-probabilities off a policy as configured, or as one supposes that somebody else does (`types.Reading`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np
import torch

from mixed_r1_ray.policy.device import to_device
from mixed_r1_ray.policy.logprobs import PolicyModel
from mixed_r1_ray.policy.lora import adapters_off
from mixed_r1_ray.policy.packing import PackedGroups
from mixed_r1_ray.types import PromptInputs, Reading


def read_logprobs(
    forward: Callable[[PackedGroups], tuple[torch.Tensor, torch.Tensor]],
    policy: PolicyModel,
    prompts: Sequence[PromptInputs],
    responses: Sequence[Sequence[np.ndarray]],
    reading: Reading,
) -> list[np.ndarray]:
    """Log-probabilities of each prompt's responses, one behind the other, from one forward of all of them.

    forward: the policy's, or that of the engine around it. `reading.pictures`, if any, is a PromptInputs here.
    """
    if reading.pictures is not None:
        prompts = [replace(prompt, pixels=reading.pictures.pixels) for prompt in prompts]
    packed = policy.pack(prompts, responses)
    if reading.own_positions:
        packed = replace(packed, position_ids=_own_positions(policy, prompts, responses))
    if reading.shift:
        packed = replace(packed, source_index=shifted_sources(packed, reading.shift))
    with _supposing(policy, reading):
        logprobs, _ = forward(packed)
    lengths = [sum(len(response) for response in row) for row in responses]
    return [part.numpy() for part in logprobs.cpu().split(lengths)]


def shifted_sources(packed: PackedGroups, shift: int) -> torch.Tensor:
    """Like PackedGroups.source_index, so many tokens later in the order prompt, its responses, next prompt, ..."""
    groups = packed.attention.prompts
    places = torch.arange(packed.input_ids.numel(), device=packed.source_index.device)
    prompts, responses = places.split([sum(groups.key_lengths), sum(groups.query_lengths)])
    pairs = zip(prompts.split(groups.key_lengths), responses.split(groups.query_lengths), strict=True)
    order = torch.cat([part for pair in pairs for part in pair])
    return order[(order.argsort()[packed.source_index] + shift).clamp(0, len(order) - 1)]


@contextmanager
def _supposing(policy: PolicyModel, reading: Reading) -> Iterator[None]:
    temperature, banned = policy.temperature, policy.adapter.banned_token_ids
    policy.temperature = reading.temperature or temperature
    policy.adapter.banned_token_ids = banned if reading.ban else ()
    try:
        with nullcontext() if reading.adapters else adapters_off(policy.model):
            yield
    finally:
        policy.temperature, policy.adapter.banned_token_ids = temperature, banned


def _own_positions(
    policy: PolicyModel, prompts: Sequence[PromptInputs], responses: Sequence[Sequence[np.ndarray]]
) -> torch.Tensor:
    """Like PackedGroups.position_ids, each sample's from what transformers gives prompt and response as one text."""
    of_prompts, of_responses = [], []
    for prompt, row in zip(prompts, responses, strict=True):
        length = len(prompt.input_ids)
        own = [_positions_of(policy, prompt, response) for response in row]
        of_prompts.append(own[-1][:, :length])
        of_responses.extend(positions[:, length:] for positions in own)
    return to_device(torch.cat(of_prompts + of_responses, dim=1).unsqueeze(1), policy.device)


def _positions_of(policy: PolicyModel, prompt: PromptInputs, response: np.ndarray) -> torch.Tensor:
    """(axes, P + T)"""
    input_ids = torch.from_numpy(np.concatenate([prompt.input_ids, response]).astype(np.int64))
    if not hasattr(policy.model.model, "get_rope_index"):
        return torch.arange(len(input_ids)).unsqueeze(0)
    grid = prompt.pixels.get("image_grid_thw")
    positions, _ = policy.model.model.get_rope_index(
        input_ids.unsqueeze(0),
        mm_token_type_ids=(input_ids == policy.adapter.image_token_id).int().unsqueeze(0),
        image_grid_thw=None if grid is None else torch.from_numpy(np.array(grid)),
    )
    return positions[:, 0]
