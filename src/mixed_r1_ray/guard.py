"""The numerics guard: stops a run that would train on noise, and names what disagreed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from mixed_r1_ray.config import Config
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.types import Group

LOGPROB_MISMATCH = {"float32": 1e-4, "bfloat16": 1.0}  # max |engine - trainer|, nats, of likely tokens
# Nats: less likely tokens may differ in proportion by more (choice). Bfloat16's bound has room for all as it is.
LIKELY = {"float32": 0.25, "bfloat16": inf}
MEAN_MISMATCH = {"float32": 1e-5, "bfloat16": 0.05}  # of a proof's tokens: below it bfloat16 is rounding (choice)
UNTRIED = "Stale weights in the engine, another temperature, other pictures or position ids look like this"
INITIAL_KL = {"float32": 1e-6, "bfloat16": 1e-2}


class NumericsError(UserError):
    """Two parts of the system that must agree do not."""


class MismatchError(NumericsError):
    """Engine and trainer give a sampled token different log-probabilities."""


@dataclass(frozen=True, slots=True)
class TokenDifference:
    """How far engine and trainer are apart on one token, and how many times `max_logprob_mismatch` they may be."""

    size: float = 0.0  # |engine - trainer|, nats
    scale: float = 1.0
    prompt_id: str = ""

    @property
    def scaled(self) -> float:
        """What is held against `max_logprob_mismatch`."""
        return self.size / self.scale


@dataclass(frozen=True, slots=True)
class TokenDifferences:
    """How far engine and trainer are apart on N tokens: sizes and scales, float64 (N,), as in TokenDifference.

    The scale is max(1, |log-probability| / likely), of the two log-probabilities the one nearer to 0: a fault that
    makes a likely token unlikely must not raise its own bound. Why in proportion, to first order: logits that are off
    by e_j move log p_t by the sum over j of p_j (e_t - e_j), so by no more than 1 - p_t <= |log p_t| times the largest
    difference of two e; and a hidden state that is off by the factor 1 + h moves it by h (log p_t + entropy).
    """

    sizes: np.ndarray
    scales: np.ndarray

    @classmethod
    def of(cls, engine: np.ndarray, trainer: np.ndarray, likely: float = LIKELY["float32"]) -> TokenDifferences:
        """Of two (N,) log-probabilities. Where one is not a number, the size is infinite."""
        engine, trainer = engine.astype(np.float64), trainer.astype(np.float64)
        with np.errstate(invalid="ignore"):
            sizes = np.nan_to_num(np.abs(engine - trainer), nan=np.inf, posinf=np.inf)
        nearer = np.minimum(np.abs(engine), np.abs(trainer))
        return cls(sizes, np.where(np.isfinite(nearer), np.maximum(nearer / likely, 1.0), 1.0))

    @classmethod
    def joined(cls, parts: Sequence[TokenDifferences]) -> TokenDifferences:
        """All tokens of several."""
        return cls(np.concatenate([part.sizes for part in parts]), np.concatenate([part.scales for part in parts]))

    @property
    def scaled(self) -> np.ndarray:
        """What is held against `max_logprob_mismatch`, (N,)."""
        return self.sizes / self.scales

    def token(self, number: int, prompt_id: str) -> TokenDifference:
        """One of them, of a response to that prompt."""
        return TokenDifference(float(self.sizes[number]), float(self.scales[number]), prompt_id)


@dataclass(frozen=True, slots=True)
class Guard:
    """Thresholds, and the checks that hold measurements against them."""

    max_logprob_mismatch: float
    max_initial_kl: float
    max_staleness: int = 0
    max_mean_mismatch: float = MEAN_MISMATCH["float32"]
    likely: float = LIKELY["float32"]

    @classmethod
    def from_config(cls, config: Config) -> Guard:
        guard, dtype = config.guard, config.model.dtype
        mismatch, kl = guard.max_logprob_mismatch, guard.max_initial_kl
        return cls(
            LOGPROB_MISMATCH[dtype] if mismatch is None else mismatch,
            INITIAL_KL[dtype] if kl is None else kl,
            config.algo.max_staleness,
            MEAN_MISMATCH[dtype] if guard.max_mean_mismatch is None else guard.max_mean_mismatch,
            LIKELY[dtype],
        )

    def allows(self, differences: TokenDifferences) -> bool:
        """Whether a proof's tokens are within both limits: each token within its own, and their mean."""
        single, mean = differences.scaled.max(), differences.sizes.mean()
        return bool(single <= self.max_logprob_mismatch and mean <= self.max_mean_mismatch)

    def proof_failed(self, step: int, differences: TokenDifferences, prompt_id: str, cause: str) -> MismatchError:
        """What to raise for differences that are not allowed, worst on that prompt."""
        worst = differences.token(int(differences.scaled.argmax()), prompt_id)
        return MismatchError(
            f"step {step}: engine and trainer log-probabilities differ by up to {self._said(worst)}, on average by "
            f"{differences.sizes.mean():.3g} (allowed {self.max_mean_mismatch:.3g}, guard.max_mean_mismatch). "
            f"Cause: {cause}."
        )

    def check_mismatch(self, step: int, worst: TokenDifference) -> None:
        """Engine and trainer must give a sampled token the same log-probability; worst: of all tokens by `scaled`."""
        if not worst.scaled <= self.max_logprob_mismatch:  # NaN fails too
            raise MismatchError(
                f"step {step}: engine and trainer log-probabilities differ by {self._said(worst)}. {UNTRIED}."
            )

    def _said(self, worst: TokenDifference) -> str:
        times = "" if worst.scale == 1 else f" times {worst.scale:.3g} for an unlikely token"
        allowed = f"allowed {self.max_logprob_mismatch * worst.scale:.3g}, guard.max_logprob_mismatch{times}"
        return f"{worst.size:.3g} on prompt {worst.prompt_id!r} ({allowed})"

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


