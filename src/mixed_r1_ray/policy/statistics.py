"""What a learner measures while it accumulates a step's gradient, summed over microbatches and ranks."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from mixed_r1_ray.algo.objective import ResponseTokens, Terms
from mixed_r1_ray.types import TrainBatch

SUMS = ("policy_loss", "kl", "entropy", "clipped", "mismatch_kl", "corrected", "correction", "bounded")


@dataclass
class StepStatistics:
    """Sums over response tokens in float64; `reduce` makes them global."""

    sums: torch.Tensor = field(default_factory=lambda: torch.zeros(len(SUMS), dtype=torch.float64))
    mismatch_abs_max: float = 0.0
    worst_prompt_id: str = ""
    has_reference: bool = False

    def add(
        self, tokens: ResponseTokens, logprobs: torch.Tensor, entropy: torch.Tensor, terms: Terms
    ) -> None:
        """Adds one microbatch; logprobs, entropy (N,), without gradient. `tokens` name their prompts too."""
        difference = logprobs.double() - tokens.rollout_logprobs.double()
        correction, zero = terms.correction, torch.zeros((), dtype=torch.float64)
        self.sums += torch.stack(
            [
                (terms.policy.loss.detach() * terms.weights).double().sum(),
                zero if terms.kl is None else terms.kl.double().sum(),
                entropy.double().sum(),
                terms.policy.clipped.double().sum(),
                (torch.expm1(difference) - difference).sum(),
                zero if correction is None else zero + len(correction.weights),
                zero if correction is None else correction.weights.double().sum(),
                zero if correction is None else correction.bounded.double().sum(),
            ]
        )
        self.has_reference |= terms.kl is not None
        mismatch = difference.abs().nan_to_num(torch.inf)  # NaN must not be forgotten when finite ones follow
        worst, token = float(mismatch.max()), int(mismatch.argmax())
        if worst > self.mismatch_abs_max:
            response = int(torch.searchsorted(tokens.response_lengths.cumsum(0), token, right=True))
            self.mismatch_abs_max, self.worst_prompt_id = worst, tokens.prompt_ids[response]

    def reduce(self) -> StepStatistics:
        """The same statistics over all ranks."""
        gathered: list = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, (self.sums, self.mismatch_abs_max, self.worst_prompt_id, self.has_reference))
        worst = max(gathered, key=lambda part: part[1])
        return StepStatistics(
            sums=torch.stack([part[0] for part in gathered]).sum(0),
            mismatch_abs_max=worst[1],
            worst_prompt_id=worst[2],
            has_reference=any(part[3] for part in gathered),
        )

    def metrics(self, batch: TrainBatch) -> dict[str, float]:
        """Under the names of the run's metrics; token means but for the loss, which carries its own aggregation."""
        value = dict(zip(SUMS, self.sums.tolist(), strict=True))
        metrics = {
            "loss/policy": value["policy_loss"],
            "entropy": value["entropy"] / batch.num_tokens,
            "clip/fraction": value["clipped"] / batch.num_tokens,
            "mismatch/logprob_abs_max": self.mismatch_abs_max,
            "mismatch/kl": value["mismatch_kl"] / batch.num_tokens,
        }
        if self.has_reference:
            metrics["kl/reference"] = value["kl"] / batch.num_tokens
        if value["corrected"]:
            metrics["correction/weight_mean"] = value["correction"] / value["corrected"]
            metrics["correction/bounded_fraction"] = value["bounded"] / value["corrected"]
        return metrics
