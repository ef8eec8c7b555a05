"""Sums over responses whose tokens lie one behind the other, as `policy.packing` lays them out."""

from __future__ import annotations

import torch


def sum_by_response(values: torch.Tensor, response_lengths: torch.Tensor) -> torch.Tensor:
    """Sum of each response's tokens: values (N,), lengths (S,) of whole responses, none empty -> (S,)."""
    return torch.segment_reduce(values, "sum", lengths=response_lengths)


def spread_over_tokens(values: torch.Tensor, response_lengths: torch.Tensor) -> torch.Tensor:
    """Each response's value at each of its tokens: values (S,) -> (N,)."""
    return torch.repeat_interleave(values, response_lengths)
