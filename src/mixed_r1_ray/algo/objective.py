"""What a step minimises: policy loss, corrected and aggregated, plus KL, minus entropy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch

from mixed_r1_ray.algo.aggregation import AGGREGATIONS, BatchSize
from mixed_r1_ray.algo.correction import Correction, rollout_correction
from mixed_r1_ray.algo.kl import ESTIMATORS, importance_weighted, k3
from mixed_r1_ray.algo.losses import TokenLoss, cispo_loss, grpo_loss, gspo_loss
from mixed_r1_ray.config import AlgoConfig


class ResponseTokens(Protocol):
    """Tokens of whole responses, one response behind the other: (N,) each, but for the lengths, (S,)."""

    response_lengths: torch.Tensor
    advantages: torch.Tensor
    rollout_logprobs: torch.Tensor
    reference_logprobs: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class Terms:
    """`total` carries the gradient; the rest is what it was made of, for the metrics, (N,) each.

    `policy.loss` is the corrected one. `kl` is k3, whichever estimator is trained with.
    """

    total: torch.Tensor
    weights: torch.Tensor
    policy: TokenLoss
    kl: torch.Tensor | None
    correction: Correction | None


class Objective:
    """The configured loss. Called on each part of a global batch, its values add up to the whole batch's."""

    def __init__(self, algo: AlgoConfig):
        self.algo = algo
        self.aggregate = AGGREGATIONS[algo.loss]
        self.estimate_kl = ESTIMATORS[algo.kl_estimator]

    def __call__(
        self,
        logprobs: torch.Tensor,
        old_logprobs: torch.Tensor,
        entropy: torch.Tensor,
        tokens: ResponseTokens,
        batch: BatchSize,
    ) -> Terms:
        """The terms of some whole responses: logprobs, old_logprobs (no gradient) and entropy (N,) each.

        batch: the size of the global batch, of which these may be a part.
        The KL term takes the loss's aggregation, as in TRL and verl. The entropy bonus is a mean over all
        tokens of the global batch, as in TRL (verl aggregates it like the loss), and the correction does not
        touch either.
        """
        algo = self.algo
        weights = self.aggregate(tokens.response_lengths, batch)
        policy = self._policy_loss(logprobs, old_logprobs, tokens)
        correction = self._correction(old_logprobs, tokens)
        if correction is not None:
            policy = replace(policy, loss=policy.loss * correction.weights)
        token_loss, kl = policy.loss, None
        if tokens.reference_logprobs is not None:
            estimate = self.estimate_kl(logprobs, tokens.reference_logprobs)
            if algo.use_bias_correction_kl:
                estimate = importance_weighted(estimate, logprobs, old_logprobs)
            token_loss = policy.loss + algo.beta * estimate
            kl = k3(logprobs.detach(), tokens.reference_logprobs)
        total = (token_loss * weights).sum()
        if algo.entropy_coef > 0:
            total = total - algo.entropy_coef * entropy.sum() / batch.num_tokens
        return Terms(total, weights, policy, kl, correction)

    def _policy_loss(
        self, logprobs: torch.Tensor, old_logprobs: torch.Tensor, tokens: ResponseTokens
    ) -> TokenLoss:
        algo, advantages = self.algo, tokens.advantages
        low, high = algo.clip_ratio_low, algo.clip_ratio_high
        if algo.loss == "gspo":
            return gspo_loss(logprobs, old_logprobs, advantages, tokens.response_lengths, low, high)
        if algo.loss == "cispo":
            return cispo_loss(logprobs, old_logprobs, advantages, algo.cispo_ratio_max)
        return grpo_loss(logprobs, old_logprobs, advantages, low, high, algo.clip_ratio_c)

    def _correction(self, old_logprobs: torch.Tensor, tokens: ResponseTokens) -> Correction | None:
        algo = self.algo
        if algo.rollout_correction == "none":
            return None
        return rollout_correction(
            old_logprobs,
            tokens.rollout_logprobs,
            tokens.response_lengths,
            level=algo.rollout_correction,
            mode=algo.rollout_correction_mode,
            ratio_max=algo.rollout_correction_max,
            ratio_min=algo.rollout_correction_min,
        )
