"""Estimators of KL(policy || reference), per token, from log-probabilities of tokens the policy sampled.

A good value does not make a good gradient (d = log reference - log policy, expectations over the policy's
tokens):

| | value | gradient of the estimate, on-policy, in expectation |
|---|---|---|
| k1 = -d | unbiased, either sign | 0: as a loss it is noise and nothing else |
| k2 = d^2 / 2 | biased, never negative | that of KL(policy, reference): unbiased |
| k3 = exp(d) - d - 1 | unbiased, never negative | that of KL(reference, policy): another divergence |

Times the ratio of the policy to the one that sampled (`importance_weighted`), the gradients of k1 and k3
become that of KL(policy || reference) too, and k2's no longer is. All of this for one token's distribution
given what stands before it.
Source: Schulman 2020, "Approximating KL divergence", for the values.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

MAX_LOG_RATIO = 20.0  # k3 grows as exp; the field clamps here


def k1(logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    """-d: the log-ratio itself; verl alike. Not clamped: it cannot overflow."""
    return logprobs - reference_logprobs


def k2(logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    """d^2 / 2; verl alike. Not clamped: a clamp would end its gradient where it is needed most."""
    return (logprobs - reference_logprobs).square() / 2


def k3(logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    """exp(d) - d - 1, d clamped to +-20: unbiased and never negative; TRL's only estimator.

    expm1 keeps it exact near zero, where a float32 exp(d) - 1 would be noise of 1e-7. verl clamps d alike,
    and then the result to +-10; TRL clamps nothing.
    """
    difference = (reference_logprobs - logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return torch.expm1(difference) - difference


def importance_weighted(kl: torch.Tensor, logprobs: torch.Tensor, old_logprobs: torch.Tensor) -> torch.Tensor:
    """r * kl with r = exp(logprobs - old_logprobs), gradient included: TRL's `use_bias_correction_kl`.

    r is the token's own, under every loss (TRL takes the sequence's where the loss does).
    Source: DeepSeek-V3.2 (arXiv 2512.02556).
    """
    return torch.exp((logprobs - old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)) * kl


ESTIMATORS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {"k1": k1, "k2": k2, "k3": k3}
