"""Broken numbers go nowhere: not from an update to the engines, not into a checkpoint, not out of one.

DeepSpeed skips an update whose gradient's norm is not finite, on all ranks: the norm is summed over them. Weights,
moments, their count of steps and so the learning rate stay as they were. What is checked here is all else: that such
updates are not the rule, that an update left finite moments and usable weights, and that the policy's answers are finite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed as dist

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.policy.adamw import MOMENTS
from mixed_r1_ray.policy.state import MOST_MOMENT, MOST_WEIGHT, first_broken, is_within, own_pieces
from mixed_r1_ray.runtime.checkpoints import Unusable
from mixed_r1_ray.types import Reading

if TYPE_CHECKING:
    from mixed_r1_ray.policy.learner import PolicyLearner

ANEW = (
    "A lower learner.learning_rate, a longer learner.warmup_steps or a lower learner.max_grad_norm makes another run, "
    "under another run.name; it can begin with the last checkpoint's weights: python -m mixed_r1_ray.export, then "
    "model.path"
)
SKIPPED = "updates/skipped"
RESPONSE_TOKENS = 8  # of the answer that is read after each step


class SkippedUpdates:
    """Counts updates in a row that were skipped; `most` of them end the run. A new learner begins at none."""

    def __init__(self, most: int):
        self.most, self.in_a_row = most, 0

    def note(self, step: int, skipped: bool) -> None:
        """One more update of that step. Raises UserError where it is the last that may be skipped."""
        self.in_a_row = self.in_a_row + 1 if skipped else 0
        if self.in_a_row >= self.most:
            raise UserError(
                f"step {step}: {self.in_a_row} updates in a row were skipped, for their gradient was not finite "
                f"(learner.max_skipped_updates {self.most}); the weights are those before them. Likeliest: weights that "
                "a high learning rate has blown up, rewards or reference log-probabilities far out of range, a loss that "
                f"overflows model.dtype. {ANEW}"
            )


def means_of(updates: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Metrics of a batch out of those of its updates: means over the ones that were made, or of all where none was."""
    made = [update for update in updates if not update[SKIPPED]] or updates
    means = {name: sum(update[name] for update in made) / len(made) for name in updates[0]}
    return means | {"updates": len(updates), SKIPPED: sum(update[SKIPPED] for update in updates)}


def check_update(learner: PolicyLearner, step: int) -> None:
    """Raises UserError on every rank where one has a weight or moment left that is broken. All ranks must call."""
    own = None if _is_sound(learner) else first_broken(own_pieces(learner))
    of_ranks: list[str | None] = [None] * learner.num_ranks
    dist.all_gather_object(of_ranks, own)
    for rank, broken in enumerate(of_ranks):
        if broken:
            raise _useless(learner, step, f"{broken} (rank {rank})")


def check_policy(learner: PolicyLearner, step: int) -> None:
    """Raises UserError where the policy's answers are not finite. All ranks must call."""
    if broken := unanswering(learner):
        raise _useless(learner, step, broken)


def check_loaded(learner: PolicyLearner, folder: Path) -> None:
    """Raises Unusable where the policy that was just loaded from there gives no finite answers. All ranks must call."""
    if broken := unanswering(learner):
        raise Unusable(f"checkpoint {folder}: {broken}")


def unanswering(learner: PolicyLearner) -> str | None:
    """What is wrong where the policy gives a short answer on a blank picture no finite log-probability; else None.

    Finite weights can be useless, too: at 1e16 products of a few of them overflow. All ranks must call.
    """
    text = learner.adapter.prompt_text("1 + 1", 1)
    inputs = learner.adapter.encode(text, [np.zeros((56, 56, 3), np.uint8)])
    words = inputs.input_ids[~np.isin(inputs.input_ids, learner.adapter.banned_token_ids)]
    response = words[-RESPONSE_TOKENS:].astype(np.int32)  # any words will do
    (logprobs,) = learner.logprobs([inputs], [[response]], Reading())
    if np.isfinite(logprobs).all():
        return None
    weights = {name: piece for name, piece in own_pieces(learner) if name.startswith("weight/") and piece.numel()}
    name = max(weights, key=lambda name: float(weights[name].abs().max()))
    size = float(weights[name].abs().max())
    return f"the policy gives tokens no finite log-probability (largest trained weight: {size:.3g}, in {name})"


def _useless(learner: PolicyLearner, step: int, what: str) -> UserError:
    rate = learner.engine.optimizer.param_groups[0]["lr"]
    return UserError(
        f"step {step}: after an update with learning rate {rate:.3g} {what}. Neither engines nor checkpoints have "
        f"these weights. {ANEW}"
    )


def _is_sound(learner: PolicyLearner) -> bool:
    """Whether this rank's weights and moments are, a few large tensors; padding may be why not."""
    zero3 = learner.engine.optimizer
    masters = zero3.fp32_partitioned_groups_flat
    moments = [zero3.optimizer.state[shard][name] for shard in masters for name in MOMENTS]
    allowed = [(shard, MOST_WEIGHT) for shard in masters] + [(moment, MOST_MOMENT) for moment in moments]
    return all(is_within(tensor, most) for tensor, most in allowed)
