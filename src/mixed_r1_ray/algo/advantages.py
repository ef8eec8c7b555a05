"""Advantages of grouped rewards. Rewards are plain floats; None marks a sample that could not be scored.

Sources: GRPO (Shao et al. 2024, arXiv 2402.03300) for the group-normalised form; Dr. GRPO (Liu et al. 2025,
arXiv 2503.20783) for leaving out the division; GDPO (arXiv 2601.05242) for normalising each reward by itself
before they are summed; the sample standard deviation as in TRL and verl, the 1e-6 beside it as in
verl (TRL: 1e-4).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

EPSILON = 1e-6
WHITENING_EPSILON = 1e-8  # under the root, as in verl
SCALES = ("group", "batch", "none")

Rewards = Sequence[float | None]


def group_advantages(
    groups: Sequence[Rewards], scale_rewards: str = "group", std_floor: float = 0.0
) -> list[tuple[float | None, ...]]:
    """(reward - group mean) / std, for each group of a batch.

    scale_rewards: the std is the `group`'s, the whole `batch`'s, or is left out (`none`).
    std_floor: least std to divide by, so that a group whose rewards differ by a hair is not blown up: choice.
    Unscored samples stay None and enter no mean; a group with one scored sample has nothing to compare: 0.
    """
    if scale_rewards not in SCALES:
        raise ValueError(f"scale_rewards={scale_rewards!r}: expected one of {', '.join(SCALES)}")
    batch_std = _std([reward for group in groups for reward in group if reward is not None])
    advantages = []
    for group in groups:
        scored = [reward for reward in group if reward is not None]
        mean = math.fsum(scored) / len(scored) if scored else 0.0
        std = {"group": _std(scored), "batch": batch_std, "none": 1.0 - EPSILON}[scale_rewards]
        divisor = max(std, std_floor if scale_rewards != "none" else 0.0) + EPSILON
        advantages.append(tuple(None if reward is None else (reward - mean) / divisor for reward in group))
    return advantages


def leave_one_out_advantages(groups: Sequence[Rewards]) -> list[tuple[float | None, ...]]:
    """RLOO: reward - mean of the group's other scored rewards = (reward - group mean) n / (n - 1).

    No division by a std, as in the paper and verl; TRL's RLOOTrainer offers to normalise over the batch
    besides. Unscored samples stay None and enter no mean; a group with one scored sample has nothing to
    compare: 0 (TRL alike; verl leaves the bare reward). Source: Ahmadian et al. 2024, arXiv 2402.14740.
    """
    advantages = []
    for group, centred in zip(groups, group_advantages(groups, "none"), strict=True):
        scored = sum(reward is not None for reward in group)
        scale = scored / (scored - 1) if scored > 1 else 0.0
        advantages.append(tuple(None if value is None else scale * value for value in centred))
    return advantages


def whitened_advantages(
    groups: Sequence[Rewards], lengths: Sequence[Sequence[int]], std_floor: float = 0.0
) -> list[tuple[float | None, ...]]:
    """REINFORCE++-baseline: reward - group mean, whitened over the batch: (a - mean) / std.

    lengths: response tokens of each sample, shaped as `groups`. Mean and std are taken over *tokens*, each
    with its response's value, as in verl and OpenRLHF: long responses weigh more, and a group of equal
    rewards is not quite 0.
    std_floor: as for group_advantages. Unscored samples stay None. Source: Hu et al. 2025, arXiv 2501.03262.
    """
    centred = group_advantages(groups, "none")
    tokens = [
        (value, length)
        for group, sizes in zip(centred, lengths, strict=True)
        for value, length in zip(group, sizes, strict=True)
        if value is not None
    ]
    total = sum(length for _, length in tokens)
    mean = math.fsum(value * length for value, length in tokens) / total if total else 0.0
    squares = math.fsum((value - mean) ** 2 * length for value, length in tokens)
    std = math.sqrt(squares / max(total - 1, 1) + WHITENING_EPSILON)
    return _standardised(centred, mean, max(std, std_floor))


def decoupled_advantages(
    rewards: Sequence[tuple[float, Sequence[Rewards]]], std_floor: float = 0.0
) -> list[tuple[float | None, ...]]:
    """GDPO: each kind of reward normalised within its group, then weighted and summed; the batch is whitened.

    rewards: (weight, its groups) of each kind, all of one shape. In a plain sum the kind that varies most
    decides the group's std, and what the others say is lost beside it; here each counts by its weight.
    std_floor: as for group_advantages, for each kind. A sample that misses one kind is None.
    """
    weights = [weight for weight, _ in rewards]
    kinds = [group_advantages(groups, "group", std_floor) for _, groups in rewards]
    sums = [[_weighted_sum(weights, sample) for sample in zip(*group)] for group in zip(*kinds)]
    scored = [value for group in sums for value in group if value is not None]
    mean, std = (math.fsum(scored) / len(scored) if scored else 0.0), _std(scored)
    return _standardised(sums, mean, std + EPSILON)


def has_zero_variance(group: Rewards) -> bool:
    """True where every scored sample has the same reward: the group teaches nothing."""
    scored = [reward for reward in group if reward is not None]
    return not scored or max(scored) - min(scored) < 1e-12


def _standardised(groups: Sequence[Rewards], mean: float, divisor: float) -> list[tuple[float | None, ...]]:
    return [tuple(None if value is None else (value - mean) / divisor for value in group) for group in groups]


def _weighted_sum(weights: Sequence[float], values: Sequence[float | None]) -> float | None:
    if None in values:
        return None
    return math.fsum(weight * value for weight, value in zip(weights, values, strict=True))


def _std(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
