"""Estimators of KL(policy || reference) from log-probabilities of tokens that the policy sampled."""

from __future__ import annotations

import torch

MAX_LOG_RATIO = 20.0  # k3 grows as exp; the field clamps here


def k3(logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    """exp(d) - d - 1 with d = reference - policy, per token: unbiased and never negative (Schulman 2020).

    expm1 keeps it exact near zero, where a float32 exp(d) - 1 would be noise of 1e-7.
    """
    difference = (reference_logprobs - logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return torch.expm1(difference) - difference
