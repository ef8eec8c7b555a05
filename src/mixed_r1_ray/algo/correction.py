"""Rollout correction: weights for tokens that the engine sampled from another distribution than the
trainer's.

Engine and trainer round differently, and may hold weights of different versions. Importance weights
w = trainer's probability / engine's put it right; they are bounded, or a rare large one would rule the step.
Sources: truncated importance sampling (Yao et al. 2025, "Your efficient RL framework secretly brings you
off-policy RL training"), masked importance sampling (IcePop; Liu et al. 2025, "When speed kills stability").
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mixed_r1_ray.algo.responses import spread_over_tokens, sum_by_response

MAX_LOG_RATIO = 20.0  # exp stays finite; verl's clamp


@dataclass(frozen=True, slots=True)
class Correction:
    """`weights` multiply the policy loss, (N,), without gradient; `bounded` marks the truncated or masked."""

    weights: torch.Tensor
    bounded: torch.Tensor


def rollout_correction(
    trainer_logprobs: torch.Tensor,
    rollout_logprobs: torch.Tensor,
    response_lengths: torch.Tensor,
    level: str,
    mode: str,
    ratio_max: float,
    ratio_min: float | None = None,
) -> Correction:
    """Bounded weights exp(trainer - engine), (N,), of each `token` or each `sequence` (its tokens' product).

    trainer_logprobs: (N,) of the policy that counts as old, in the trainer's arithmetic. response_lengths:
    (S,).
    mode: `truncate` lowers weights to ratio_max; `mask` makes those above ratio_max or below ratio_min (None:
    1 / ratio_max) zero and keeps the others as they are, TRL's token_mask and sequence_mask. verl's rejection
    by itself keeps them at 1 instead, and takes what it rejects out of the denominator of the loss; here, as
    in TRL, the denominator stays.
    """
    with torch.no_grad():
        log_ratio = trainer_logprobs - rollout_logprobs
        if level == "sequence":
            log_ratio = spread_over_tokens(sum_by_response(log_ratio, response_lengths), response_lengths)
        ratio = torch.exp(log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO))
        if mode == "truncate":
            return Correction(ratio.clamp(max=ratio_max), ratio > ratio_max)
        least = 1.0 / ratio_max if ratio_min is None else ratio_min
        outside = (ratio < least) | (ratio > ratio_max)
        return Correction(ratio.masked_fill(outside, 0.0), outside)
