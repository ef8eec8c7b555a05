"""The numerics guard: stops a run that would train on noise, and names what disagreed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixed_r1_ray.config import Config
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.types import Group

LOGPROB_MISMATCH = {"float32": 1e-4, "bfloat16": 1.0}  # max |engine - trainer|, nats
MEAN_MISMATCH = {"float32": 1e-5, "bfloat16": 0.05}  # of a proof's tokens: below it bfloat16 is rounding (choice)
UNTRIED = "Stale weights in the engine, another temperature, other pictures or position ids look like this"
INITIAL_KL = {"float32": 1e-6, "bfloat16": 1e-2}


class NumericsError(UserError):
    """Two parts of the system that must agree do not."""


class MismatchError(NumericsError):
    """Engine and trainer give a sampled token different log-probabilities."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Thresholds, and the checks that hold measurements against them."""

    max_logprob_mismatch: float
    max_initial_kl: float
    max_staleness: int = 0
    max_mean_mismatch: float = MEAN_MISMATCH["float32"]

    @classmethod
    def from_config(cls, config: Config) -> Guard:
        guard, dtype = config.guard, config.model.dtype
        mismatch, kl = guard.max_logprob_mismatch, guard.max_initial_kl
        return cls(
            LOGPROB_MISMATCH[dtype] if mismatch is None else mismatch,
            INITIAL_KL[dtype] if kl is None else kl,
            config.algo.max_staleness,
            MEAN_MISMATCH[dtype] if guard.max_mean_mismatch is None else guard.max_mean_mismatch,
        )

    def allows(self, differences: np.ndarray) -> bool:
        """Whether the |engine - trainer| log-probabilities of a proof's tokens are within both limits; NaN never is."""
        return bool(differences.max() <= self.max_logprob_mismatch and differences.mean() <= self.max_mean_mismatch)

    def proof_failed(self, step: int, differences: np.ndarray, prompt_id: str, cause: str) -> MismatchError:
        """What to raise for differences that are not allowed, worst on that prompt."""
        return MismatchError(
            f"step {step}: engine and trainer log-probabilities differ by up to {differences.max():.3g} (allowed "
            f"{self.max_logprob_mismatch:.3g}, guard.max_logprob_mismatch), on average by {differences.mean():.3g} "
            f"(allowed {self.max_mean_mismatch:.3g}, guard.max_mean_mismatch), worst on prompt {prompt_id!r}. "
            f"Cause: {cause}."
        )

    def check_mismatch(self, step: int, mismatch: float, prompt_id: str) -> None:
        """Engine and trainer must give a sampled token the same log-probability."""
        if not mismatch <= self.max_logprob_mismatch:  # NaN fails too
            raise MismatchError(
                f"step {step}: engine and trainer log-probabilities differ by {mismatch:.3g} on prompt {prompt_id!r} "
                f"(allowed {self.max_logprob_mismatch:.3g}, guard.max_logprob_mismatch). {UNTRIED}."
            )

    def check_version(self, step: int, prompt_id: str, version: int, scheduled: int) -> None:
        """A group must come from the weights that its batch was to be generated with."""
        if version != scheduled:
            raise NumericsError(
                f"step {step}: prompt {prompt_id!r} was answered with weight version {version}, but version {scheduled} "
                "was due: an engine missed or overtook a weight load."
            )

    def check_staleness(self, step: int, prompt_id: str, oldest_version: int) -> None:
        """No token may be older than algo.max_staleness versions when it is learned from."""
        behind = step - 1 - oldest_version
        if behind > self.max_staleness:
            raise NumericsError(
                f"step {step}: a token of prompt {prompt_id!r} comes from weight version {oldest_version}, {behind} "
                f"behind the policy's {step - 1} (algo.max_staleness {self.max_staleness})."
            )

    def check_media_tokens(self, group: Group, banned_token_ids: Sequence[int]) -> None:
        """A response must hold no token that stands for a picture: the trainer would look for the picture."""
        for rollout in group.rollouts:
            said = rollout.token_ids[np.isin(rollout.token_ids, banned_token_ids)]
            if len(said):
                raise NumericsError(
                    f"prompt {group.prompt_id!r}: sample {rollout.sample_index} holds media token {said[0]}. Cause: "
                    "the engine does not ban media tokens (logit_bias was lost on the way)."
                )

    def check_initial_kl(self, kl: float) -> None:
        """Before the first update, policy and reference are one model."""
        if not abs(kl) <= self.max_initial_kl:
            raise NumericsError(
                f"KL(policy || reference) is {kl:.3g} before any update (allowed {self.max_initial_kl:.3g}, "
                "guard.max_initial_kl): policy and reference were not loaded from the same checkpoint."
            )

    def check_prompt_ids(self, prompt_id: str, engine_ids, trainer_ids) -> None:
        """The engine's expanded prompt must be the trainer's, token by token."""
        if len(engine_ids) == len(trainer_ids) and (engine_ids == trainer_ids).all():
            return
        differing = next(
            (i for i, (a, b) in enumerate(zip(engine_ids, trainer_ids, strict=False)) if a != b),
            min(len(engine_ids), len(trainer_ids)),
        )
        raise NumericsError(
            f"prompt {prompt_id!r}: engine and trainer disagree from token {differing} on "
            f"({len(engine_ids)} and {len(trainer_ids)} tokens): picture limits or chat template differ."
        )


