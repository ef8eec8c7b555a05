"""What a learner measures of a step, summed over microbatches and ranks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed as dist

from mixed_r1_ray.algo.kl import k3
from mixed_r1_ray.algo.objective import Terms
from mixed_r1_ray.guard import LIKELY, Spread, TokenDifference, TokenDifferences, high_quantile, locate
from mixed_r1_ray.policy.tokens import TokenTensors
from mixed_r1_ray.types import TrainBatch

SUMS = ("policy_loss", "kl", "entropy", "clipped", "old_kl", "corrected", "correction", "bounded")


@dataclass
class UpdateStatistics:
    """Of one optimizer step: sums over response tokens in float64; `reduce` makes them global."""

    sums: torch.Tensor = field(default_factory=lambda: torch.zeros(len(SUMS), dtype=torch.float64))
    has_reference: bool = False

    def add(
        self, logprobs: torch.Tensor, old_logprobs: torch.Tensor, entropy: torch.Tensor, terms: Terms
    ) -> None:
        """Adds one microbatch: logprobs, old_logprobs, entropy (N,), without gradient."""
        correction, zero = terms.correction, torch.zeros((), dtype=torch.float64, device=logprobs.device)
        sums = torch.stack(
            [
                (terms.policy.loss.detach() * terms.weights).double().sum(),
                zero if terms.kl is None else terms.kl.double().sum(),
                entropy.double().sum(),
                terms.policy.clipped.double().sum(),
                k3(old_logprobs.double(), logprobs.double()).sum(),
                zero if correction is None else zero + len(correction.weights),
                zero if correction is None else correction.weights.double().sum(),
                zero if correction is None else correction.bounded.double().sum(),
            ]
        )
        self.sums += sums.cpu()
        self.has_reference |= terms.kl is not None

    def reduce(self) -> UpdateStatistics:
        """The same statistics over all ranks."""
        parts = _gather((self.sums, self.has_reference))
        return UpdateStatistics(torch.stack([sums for sums, _ in parts]).sum(0), any(has for _, has in parts))

    def metrics(self, batch: TrainBatch) -> dict[str, float]:
        """Under the names of the run's metrics; token means but for the loss, which carries its own aggregation."""
        value = dict(zip(SUMS, self.sums.tolist(), strict=True))
        metrics = {
            "loss/policy": value["policy_loss"],
            "entropy": value["entropy"] / batch.num_tokens,
            "clip/fraction": value["clipped"] / batch.num_tokens,
            "kl/old": value["old_kl"] / batch.num_tokens,
        }
        if self.has_reference:
            metrics["kl/reference"] = value["kl"] / batch.num_tokens
        if value["corrected"]:
            metrics["correction/weight_mean"] = value["correction"] / value["corrected"]
            metrics["correction/bounded_fraction"] = value["bounded"] / value["corrected"]
        return metrics


@dataclass
class Mismatch:
    """Engine against trainer on every token, before a step's first update.

    Sizes are kept, 5 bytes a token: a quantile over all ranks wants them. What is judged are the tokens of the current
    weights, where the two should agree; those of older ones (`algo.max_staleness`) differ by what was learned since.
    likely: the guard's.
    """

    likely: float = LIKELY["float32"]
    kl_sum: float = 0.0
    sizes: list[np.ndarray] = field(default_factory=list)  # float32 (N,) of each microbatch
    current: list[np.ndarray] = field(default_factory=list)  # bool (N,): of the current weights
    worst: TokenDifference = TokenDifference()

    def add(self, tokens: TokenTensors, logprobs: torch.Tensor, version: int) -> None:
        """Adds one microbatch; logprobs (N,), the trainer's; version: of its weights."""
        difference = logprobs.double() - tokens.rollout_logprobs.double()
        self.kl_sum += float((torch.expm1(difference) - difference).sum())
        engine, trainer = tokens.rollout_logprobs.cpu().numpy(), logprobs.cpu().numpy()
        differences = TokenDifferences.of(engine, trainer, self.likely)
        current = tokens.weight_versions.cpu().numpy() == version
        self.sizes.append(differences.sizes.astype(np.float32))
        self.current.append(current)
        held = np.where(current, differences.scaled, 0.0)
        token = int(held.argmax())
        if held[token] > self.worst.scaled:
            response, position = locate(token, tokens.response_lengths.tolist())
            self.worst = differences.token(token, *tokens.samples[response], position)

    def reduce(self) -> Mismatch:
        """The same over all ranks."""
        parts = _gather(self)
        return Mismatch(
            self.likely,
            kl_sum=sum(part.kl_sum for part in parts),
            sizes=[sizes for part in parts for sizes in part.sizes],
            current=[current for part in parts for current in part.current],
            worst=max((part.worst for part in parts), key=lambda worst: worst.scaled),
        )

    def spread(self) -> Spread:
        """Of the tokens of the current weights."""
        return Spread.of(np.concatenate(self.sizes)[np.concatenate(self.current)], self.worst)

    def metrics(self) -> dict[str, float]:
        """Over all tokens, under the names of the run's metrics."""
        sizes = np.concatenate(self.sizes)
        return {
            "mismatch/logprob_abs_max": float(sizes.max()),
            "mismatch/logprob_abs_mean": float(sizes.mean(dtype=np.float64)),
            "mismatch/logprob_abs_q999": high_quantile(sizes),
            "mismatch/kl": self.kl_sum / len(sizes),
        }


def _gather(part) -> list:
    gathered: list = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, part)
    return gathered
