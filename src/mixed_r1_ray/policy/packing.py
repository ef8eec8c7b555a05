"""Lays a group out as one sequence: the prompt once, its responses behind it, each blind to the others.

    prompt | response 0 | response 1 | ... | padding

A response token attends to the prompt and to its own past, and its position counts on from the prompt's. The forward
is the one of G separate sequences, but the pictures and the prompt are computed once, and nothing is padded inside a
group. Rows of several groups are padded to the longest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mixed_r1_ray.policy.group_attention import GroupAttention
from mixed_r1_ray.types import PromptInputs
from mixed_r1_ray.vlm.base import VLMAdapter


@dataclass(frozen=True, slots=True)
class PackedGroups:
    """B rows of L tokens; N response tokens in all, in the order of rows, responses, tokens."""

    input_ids: torch.Tensor  # int64 (B, L)
    position_ids: torch.Tensor  # int64 (axes, B, L)
    attention: GroupAttention  # who attends to whom
    pixels: Mapping[str, torch.Tensor]  # all pictures of all prompts, in order; empty without pictures
    source_index: torch.Tensor  # int64 (N,), into the flattened B * L: the state that predicts each response token
    target_ids: torch.Tensor  # int64 (N,)
    response_lengths: torch.Tensor  # int64 (S,), tokens of each response


def pack(
    prompts: Sequence[PromptInputs],
    responses: Sequence[Sequence[np.ndarray]],
    adapter: VLMAdapter,
    model: torch.nn.Module,
) -> PackedGroups:
    """Packs one row a prompt, on the CPU.

    responses[b]: the token ids, (T,), of each response to prompt b; none may be empty.
    """
    rows = [_Row.lay_out(prompt, row, adapter, model) for prompt, row in zip(prompts, responses, strict=True)]
    length = max(len(row.input_ids) for row in rows)
    return PackedGroups(
        input_ids=torch.stack([_pad(row.input_ids, length, 0) for row in rows]),
        position_ids=torch.stack([_pad(row.positions, length, 0) for row in rows], dim=1),
        attention=GroupAttention.plan(
            [len(prompt.input_ids) for prompt in prompts],
            [[len(response) for response in row] for row in responses],
            length,
        ),
        pixels=_concatenate([row.pixels for row in rows]),
        source_index=torch.cat([row.source_index + b * length for b, row in enumerate(rows)]),
        target_ids=torch.cat([row.target_ids for row in rows]),
        response_lengths=torch.tensor([len(response) for row in responses for response in row]),
    )


@dataclass(frozen=True, slots=True)
class _Row:
    input_ids: torch.Tensor  # (L,)
    positions: torch.Tensor  # (axes, L)
    source_index: torch.Tensor  # (n,)
    target_ids: torch.Tensor  # (n,)
    pixels: Mapping[str, torch.Tensor]

    @classmethod
    def lay_out(
        cls, prompt: PromptInputs, responses: Sequence[np.ndarray], adapter: VLMAdapter, model: torch.nn.Module
    ) -> _Row:
        prompt_ids = torch.from_numpy(np.array(prompt.input_ids))
        pixels = {name: torch.from_numpy(np.array(array)) for name, array in prompt.pixels.items()}
        prompt_positions, next_position = adapter.prompt_positions(model, prompt_ids, pixels)
        lengths = torch.tensor([len(response) for response in responses])
        target_ids = torch.from_numpy(np.concatenate(responses).astype(np.int64))
        offsets = torch.cat([torch.arange(length) for length in lengths])
        index = len(prompt_ids) + torch.arange(len(target_ids))
        response_positions = (next_position + offsets).expand(len(prompt_positions), -1)
        return cls(
            input_ids=torch.cat([prompt_ids, target_ids]),
            positions=torch.cat([prompt_positions, response_positions], dim=1),
            source_index=torch.where(offsets == 0, len(prompt_ids) - 1, index - 1),
            target_ids=target_ids,
            pixels=pixels,
        )


def _pad(values: torch.Tensor, length: int, value: int) -> torch.Tensor:
    return torch.nn.functional.pad(values, (0, length - values.shape[-1]), value=value)


def _concatenate(pixels: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    names = {name: None for row in pixels for name in row}
    return {name: torch.cat([row[name] for row in pixels if name in row]) for name in names}
