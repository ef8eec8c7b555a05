"""Token weights that make one number of token losses: sum(token_loss * weight) over the *global* batch.

The weights divide by the size of the global batch, so the result does not depend on how it is cut into ranks
and microbatches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class BatchSize:
    """The global optimizer batch, as far as it enters the loss, and the longest response that is sampled."""

    num_samples: int
    num_tokens: int
    max_response_tokens: int


def sequence_mean_token_mean(response_lengths: torch.Tensor, batch: BatchSize) -> torch.Tensor:
    """Mean over sequences of token means: 1 / (T_i * samples), (N,). grpo's and gspo's.

    response_lengths: (S,) of the sequences at hand. verl: seq-mean-token-mean.
    """
    lengths = response_lengths.to(torch.float32)
    return torch.repeat_interleave(1.0 / (lengths * batch.num_samples), response_lengths)


def token_mean(response_lengths: torch.Tensor, batch: BatchSize) -> torch.Tensor:
    """Mean over all tokens of the global batch: 1 / tokens, (N,). dapo's and cispo's; verl: token-mean."""
    return _constant(1.0 / batch.num_tokens, response_lengths)


def sequence_mean_token_sum_norm(response_lengths: torch.Tensor, batch: BatchSize) -> torch.Tensor:
    """Sum over tokens, by a constant: 1 / (samples * longest response), (N,). dr_grpo's, as TRL has it.

    verl's seq-mean-token-sum-norm divides by the longest response only, so it is `samples` times as large.
    Source: Liu et al. 2025 (arXiv 2503.20783).
    """
    return _constant(1.0 / (batch.num_samples * batch.max_response_tokens), response_lengths)


def _constant(value: float, response_lengths: torch.Tensor) -> torch.Tensor:
    return torch.full((int(response_lengths.sum()),), value, device=response_lengths.device)


AGGREGATIONS: dict[str, Callable[[torch.Tensor, BatchSize], torch.Tensor]] = {
    "grpo": sequence_mean_token_mean,
    "dapo": token_mean,
    "dr_grpo": sequence_mean_token_sum_norm,
    "gspo": sequence_mean_token_mean,
    "cispo": token_mean,
}
