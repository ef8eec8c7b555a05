"""Policy losses of the GRPO family, per token, and the weights that make them one number.

A loss over the *global* batch is sum(token_loss * token_weight): the weights carry the aggregation, so the result does
not depend on how the batch is cut into ranks and microbatches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class TokenLoss:
    """`loss` and `clipped` have the shape of the inputs, (N,); `clipped` marks where the clip held the gradient."""

    loss: torch.Tensor
    clipped: torch.Tensor


def grpo_loss(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    clip_ratio_low: float,
    clip_ratio_high: float,
) -> TokenLoss:
    """-min(r A, clip(r, 1 - low, 1 + high) A) with r = exp(logprobs - old_logprobs); PPO's clip, per token.

    All tensors (N,): one entry a response token. Source: Shao et al. 2024, equation 3.
    """
    ratio = torch.exp(logprobs - old_logprobs)
    clipped_ratio = ratio.clamp(1.0 - clip_ratio_low, 1.0 + clip_ratio_high)
    unclipped, clipped = ratio * advantages, clipped_ratio * advantages
    return TokenLoss(loss=-torch.minimum(unclipped, clipped), clipped=clipped < unclipped)


def sequence_mean_token_mean(response_lengths: torch.Tensor, num_samples: int) -> torch.Tensor:
    """Weights of GRPO's aggregation, mean over sequences of token means: 1 / (T_i * samples), (N,).

    response_lengths: (S,) of the sequences at hand; num_samples: sequences of the global batch.
    """
    lengths = response_lengths.to(torch.float32)
    return torch.repeat_interleave(1.0 / (lengths * num_samples), response_lengths)


@dataclass(frozen=True, slots=True)
class LossRecipe:
    """One member of the family: its token loss and its aggregation."""

    token_loss: Callable[..., TokenLoss]
    token_weights: Callable[[torch.Tensor, int], torch.Tensor]


RECIPES = {"grpo": LossRecipe(grpo_loss, sequence_mean_token_mean)}
