"""The optimizer: torch's AdamW in its fused form, one pass over weights, gradients and moments where they lie.

On the host it uses all threads of the process (docs/performance.md#adamw-on-the-host has its rate). DeepSpeed's own for
the host is not taken: it is compiled at its first start, so it asks for a compiler, and a start that is killed meanwhile
leaves a lock behind for which all later ones wait. On a GPU fused means fewer passes and no temporary copies of the state.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mixed_r1_ray.config import LearnerConfig

MOMENTS = ("exp_avg", "exp_avg_sq")


def make_adamw(parameters: Sequence[torch.Tensor], learner: LearnerConfig) -> torch.optim.AdamW:
    """Over `parameters`, with the learning rate, decay rates and weight decay of the configuration."""
    betas, decay = tuple(learner.betas), learner.weight_decay
    return torch.optim.AdamW(parameters, lr=learner.learning_rate, betas=betas, weight_decay=decay, fused=True)


def fresh_state(weights: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of float32 `weights` that were never updated, on their device: moments of zero, and the count of updates."""
    moments = {name: torch.zeros_like(weights, requires_grad=False) for name in MOMENTS}
    return {"step": step_count(weights, 0)} | moments


def step_count(weights: torch.Tensor, steps: int) -> torch.Tensor:
    """As the fused form wants it: on the device of what it updates."""
    return torch.tensor(float(steps), device=weights.device)
