"""Lays groups out as one sequence: every prompt once, then all responses, each blind to the others.

    prompt 0 | prompt 1 | ... | responses to prompt 0 | responses to prompt 1 | ...

A response token attends to its prompt and to its own past, and its position counts on from the prompt's. The forward is
the one of separate sequences, but the pictures and the prompt are computed once a group, and nothing is padded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch

from mixed_r1_ray.policy.group_attention import GroupAttention
from mixed_r1_ray.types import PromptInputs
from mixed_r1_ray.vlm.base import VLMAdapter


@dataclass(frozen=True, slots=True)
class PackedGroups:
    """L tokens of B prompts and their responses; the last N are those of responses, in the order of prompts."""

    input_ids: torch.Tensor  # int64 (1, L)
    position_ids: torch.Tensor  # int64 (axes, 1, L)
    attention: GroupAttention  # who attends to whom
    pixels: Mapping[str, torch.Tensor]  # all pictures of all prompts, in order; empty without pictures
    source_index: torch.Tensor  # int64 (N,), which of the L states predicts each response token
    response_lengths: torch.Tensor  # int64 (S,), tokens of each response

    @property
    def target_ids(self) -> torch.Tensor:
        """The response tokens, int64 (N,)."""
        return self.input_ids[0, -len(self.source_index) :]


def pack(
    prompts: Sequence[PromptInputs],
    responses: Sequence[Sequence[np.ndarray]],
    adapter: VLMAdapter,
    model: torch.nn.Module,
) -> PackedGroups:
    """Packs prompts and their responses, on the CPU.

    responses[b]: the token ids, (T,), of each response to prompt b; none may be empty.
    """
    rows = [_Row.lay_out(prompt, row, adapter, model) for prompt, row in zip(prompts, responses, strict=True)]
    prompt_lengths = [len(row.prompt_ids) for row in rows]
    response_lengths = [[len(response) for response in row] for row in responses]
    ids = [row.prompt_ids for row in rows] + [row.target_ids for row in rows]
    positions = [row.prompt_positions for row in rows] + [row.response_positions for row in rows]
    return PackedGroups(
        input_ids=torch.cat(ids).unsqueeze(0),
        position_ids=torch.cat(positions, dim=1).unsqueeze(1),
        attention=GroupAttention.plan(prompt_lengths, response_lengths),
        pixels=_concatenate([row.pixels for row in rows]),
        source_index=_source_index(prompt_lengths, response_lengths),
        response_lengths=torch.tensor([length for row in response_lengths for length in row]),
    )


@dataclass(frozen=True, slots=True)
class _Row:
    """One group."""

    prompt_ids: torch.Tensor  # (P,)
    prompt_positions: torch.Tensor  # (axes, P)
    target_ids: torch.Tensor  # (n,)
    response_positions: torch.Tensor  # (axes, n)
    pixels: Mapping[str, torch.Tensor]

    @classmethod
    def lay_out(
        cls, prompt: PromptInputs, responses: Sequence[np.ndarray], adapter: VLMAdapter, model: torch.nn.Module
    ) -> _Row:
        prompt_ids = torch.from_numpy(np.array(prompt.input_ids))
        pixels = {name: torch.from_numpy(np.array(array)) for name, array in prompt.pixels.items()}
        positions, next_position = adapter.prompt_positions(model, prompt_ids, pixels)
        offsets = torch.cat([torch.arange(len(response)) for response in responses])
        return cls(
            prompt_ids=prompt_ids,
            prompt_positions=positions,
            target_ids=torch.from_numpy(np.concatenate(responses).astype(np.int64)),
            response_positions=(next_position + offsets).expand(len(positions), -1),
            pixels=pixels,
        )


def _source_index(prompt_lengths: Sequence[int], response_lengths: Sequence[Sequence[int]]) -> torch.Tensor:
    """A response's first token is predicted by its prompt's last state, each other by the one before it."""
    place = sum(prompt_lengths)
    index = torch.arange(place, place + sum(map(sum, response_lengths))) - 1
    for prompt_end, row in zip(accumulate(prompt_lengths), response_lengths, strict=True):
        for length in row:
            index[place - sum(prompt_lengths)] = prompt_end - 1
            place += length
    return index


def _concatenate(pixels: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    names = {name: None for row in pixels for name in row}
    return {name: torch.cat([row[name] for row in pixels if name in row]) for name in names}
