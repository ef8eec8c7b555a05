"""The numerics guard: stops a run that would train on noise, and names what disagreed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite

import numpy as np

from mixed_r1_ray.config import Config
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.types import Group

# Nats, |engine - trainer| of log-probabilities. Where they come from: docs/algorithms.md, "the guard".
LOGPROB_MISMATCH = {"float32": 1e-4, "bfloat16": inf}  # of each likely token; in bfloat16 no token is judged alone
LIKELY = {"float32": 0.25, "bfloat16": inf}  # less likely tokens may differ in proportion by more (choice)
MEAN_MISMATCH = {"float32": 1e-5, "bfloat16": 0.1}  # over tokens
QUANTILE_MISMATCH = {"float32": inf, "bfloat16": 1.0}  # of all but a thousandth of the tokens
TAIL, LEAST_TAIL = 1e-3, 10  # of N tokens max(LEAST_TAIL, TAIL * N) may be beyond; fewer would be noise (choice)
UNTRIED = "Stale weights in the engine, another temperature, other pictures or position ids look like this"
ADVICE = (
    "Look at mismatch/* of the steps before: if it rose at once, it is a fault; if it was near its bound from the "
    "first step on, it is rounding, and the bound may be raised"
)
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
    sample: int = 0  # which of the prompt's responses
    position: int = 0  # of the token in the response

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

    def token(self, number: int, prompt_id: str, sample: int, position: int) -> TokenDifference:
        """One of them, and whose it is."""
        return TokenDifference(float(self.sizes[number]), float(self.scales[number]), prompt_id, sample, position)


@dataclass(frozen=True, slots=True)
class Spread:
    """How far engine and trainer are apart on a set of tokens, nats."""

    mean: float
    quantile: float  # as `high_quantile`
    worst: TokenDifference  # by `scaled`

    @classmethod
    def of(cls, sizes: np.ndarray, worst: TokenDifference) -> Spread:
        """sizes: (N,), those of all tokens; of no tokens it is 0."""
        return cls(float(sizes.mean(dtype=np.float64)) if len(sizes) else 0.0, high_quantile(sizes), worst)


def high_quantile(sizes: np.ndarray) -> float:
    """The (k + 1)-th largest of `sizes`, (N,), with k = max(LEAST_TAIL, TAIL * N): all but k stay within it.

    From 10,000 on that is the 99.9 % quantile, exactly; of k + 1 or fewer it is the smallest, of none 0.
    """
    if len(sizes) == 0:
        return 0.0
    place = max(len(sizes) - 1 - max(LEAST_TAIL, int(TAIL * len(sizes))), 0)
    return float(np.partition(sizes, place)[place])


def locate(token: int, lengths: Sequence[int]) -> tuple[int, int]:
    """Which response a token is in, and where, of responses of these lengths one behind the other."""
    ends = np.cumsum(lengths)
    response = int(np.searchsorted(ends, token, side="right"))
    return response, token - int(ends[response] - lengths[response])


@dataclass(frozen=True, slots=True)
class Guard:
    """Thresholds, and the checks that hold measurements against them."""

    max_logprob_mismatch: float
    max_initial_kl: float
    max_staleness: int = 0
    max_mean_mismatch: float = MEAN_MISMATCH["float32"]
    max_quantile_mismatch: float = QUANTILE_MISMATCH["float32"]
    likely: float = LIKELY["float32"]

    @classmethod
    def from_config(cls, config: Config) -> Guard:
        guard, dtype = config.guard, config.model.dtype

        def chosen(given: float | None, usual: dict[str, float]) -> float:
            return usual[dtype] if given is None else given

        return cls(
            chosen(guard.max_logprob_mismatch, LOGPROB_MISMATCH),
            chosen(guard.max_initial_kl, INITIAL_KL),
            config.algo.max_staleness,
            chosen(guard.max_mean_mismatch, MEAN_MISMATCH),
            chosen(guard.max_quantile_mismatch, QUANTILE_MISMATCH),
            LIKELY[dtype],
        )

    def allows(self, differences: TokenDifferences) -> bool:
        """Whether a proof's tokens are within all limits: each within its own, their mean, and all but a few."""
        worst = int(differences.scaled.argmax())
        return self._allows(Spread.of(differences.sizes, differences.token(worst, "", 0, 0)), by_mean=True)

    def proof_failed(self, step: int, spread: Spread, cause: str) -> MismatchError:
        """What to raise for tokens that are not allowed."""
        return MismatchError(f"step {step}: {self._said(spread, by_mean=True)}. Cause: {cause}.")

    def check_mismatch(self, step: int, spread: Spread) -> None:
        """Engine and trainer must give a step's tokens the same log-probabilities.

        Each token, or where rounding puts single ones far off (bfloat16), their mean and all but a thousandth of them.
        """
        by_mean = isfinite(self.max_quantile_mismatch)
        if not self._allows(spread, by_mean):
            raise MismatchError(f"step {step}: {self._said(spread, by_mean)}. {UNTRIED}. {ADVICE}.")

    def _allows(self, spread: Spread, by_mean: bool) -> bool:
        """NaN is not allowed."""
        return (
            spread.worst.scaled <= self.max_logprob_mismatch
            and (spread.mean <= self.max_mean_mismatch or not by_mean)
            and spread.quantile <= self.max_quantile_mismatch
        )

    def _said(self, spread: Spread, by_mean: bool) -> str:
        worst = spread.worst
        times = "" if worst.scale == 1 else f" times {worst.scale:.3g} for an unlikely token"
        where = f"token {worst.position} of sample {worst.sample} of prompt {worst.prompt_id!r}"
        mean = _allowed(self.max_mean_mismatch, "max_mean_mismatch") if by_mean else ""
        return (
            f"engine and trainer log-probabilities differ by {worst.size:.3g} on {where}"
            f"{_allowed(self.max_logprob_mismatch * worst.scale, f'max_logprob_mismatch{times}')}, "
            f"on average by {spread.mean:.3g}{mean}, and all but {TAIL:.1%} of the tokens, at least {LEAST_TAIL}, "
            f"by at most {spread.quantile:.3g}{_allowed(self.max_quantile_mismatch, 'max_quantile_mismatch')}"
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


def _allowed(limit: float, key: str) -> str:
    return f" (allowed {limit:.3g}, guard.{key})" if isfinite(limit) else ""
