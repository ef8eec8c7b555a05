"""Policy losses of the GRPO family, per token. algo/aggregation.py makes one number of them.

All tensors (N,): one entry a response token. Ratios are of the policy to the one that is taken as old.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mixed_r1_ray.algo.responses import spread_over_tokens, sum_by_response

MAX_LOG_RATIO = 20.0  # the ratio stays finite, and 0 * ratio stays 0; verl's clamp


@dataclass(frozen=True, slots=True)
class TokenLoss:
    """`loss` and `clipped` have the shape of the inputs, (N,); `clipped` marks where a clip held."""

    loss: torch.Tensor
    clipped: torch.Tensor


def grpo_loss(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    clip_ratio_low: float,
    clip_ratio_high: float,
    clip_ratio_c: float | None = None,
) -> TokenLoss:
    """-min(r A, clip(r, 1 - low, 1 + high) A) with r = exp(logprobs - old_logprobs); PPO's clip, per token.

    The token loss of grpo, dapo and dr_grpo alike. clip_ratio_c: dual clip (Ye et al. 2020, arXiv 1912.09729;
    verl's name): where A < 0 the loss is at most -c A. TRL's `delta` caps the ratio itself: the same wherever
    c > 1 + high.
    Sources: Shao et al. 2024 (arXiv 2402.03300), equation 3; unequal clips: DAPO (Yu et al. 2025, arXiv
    2503.14476).
    """
    ratio = _ratio(logprobs - old_logprobs)
    result = _clipped_surrogate(ratio, advantages, clip_ratio_low, clip_ratio_high)
    if clip_ratio_c is None:
        return result
    dual = (advantages < 0) & (result.loss > -clip_ratio_c * advantages)
    return TokenLoss(torch.where(dual, -clip_ratio_c * advantages, result.loss), result.clipped | dual)


def gspo_loss(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    response_lengths: torch.Tensor,
    clip_ratio_low: float,
    clip_ratio_high: float,
) -> TokenLoss:
    """PPO's clip of the sequence ratio s = exp(mean of log r over the response), at each of its tokens.

    response_lengths: (S,) of whole responses, whose tokens lie one behind the other.
    s carries the gradient of all its tokens, as in TRL (`importance_sampling_level="sequence"`). verl's gspo
    gives each token its own share of it (GSPO-token): the same gradient under the mean over sequences of
    token means, as long as all tokens of a response weigh the same. Source: Zheng et al. 2025 (arXiv
    2507.18071).
    """
    mean_log_ratio = sum_by_response(logprobs - old_logprobs, response_lengths) / response_lengths
    ratio = spread_over_tokens(_ratio(mean_log_ratio), response_lengths)
    return _clipped_surrogate(ratio, advantages, clip_ratio_low, clip_ratio_high)


def cispo_loss(
    logprobs: torch.Tensor, old_logprobs: torch.Tensor, advantages: torch.Tensor, ratio_max: float
) -> TokenLoss:
    """-stopgrad(min(r, ratio_max)) A log pi: the weight is capped, and no token loses its gradient.

    ratio_max is the cap itself, TRL's `epsilon_high` under `loss_type="cispo"`; verl's cap is 1 +
    `clip_ratio_high`, and it also holds the ratio above 1 - `clip_ratio_low`, which neither the paper nor TRL
    does. `clipped` marks capped weights. Source: MiniMax-M1 (arXiv 2506.13585).
    """
    ratio = _ratio(logprobs.detach() - old_logprobs)
    return TokenLoss(-ratio.clamp(max=ratio_max) * advantages * logprobs, ratio > ratio_max)


def _ratio(log_ratio: torch.Tensor) -> torch.Tensor:
    return torch.exp(log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO))


def _clipped_surrogate(ratio: torch.Tensor, advantages: torch.Tensor, low: float, high: float) -> TokenLoss:
    unclipped, clipped = ratio * advantages, ratio.clamp(1.0 - low, 1.0 + high) * advantages
    return TokenLoss(loss=-torch.minimum(unclipped, clipped), clipped=clipped < unclipped)
