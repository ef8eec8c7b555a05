"""Why engine and trainer disagree: suppositions about the cause, each tried on the real parts, until one fits.

A supposition is the trainer reading the same samples in another way (another temperature, without the ban on media
tokens, one token further on, ...), or the engine sampling once more after it was given the weights again. The one under
which both agree names the fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mixed_r1_ray.guard import Guard, TokenDifferences
from mixed_r1_ray.policy.group import LearnerGroup
from mixed_r1_ray.remote import fetch
from mixed_r1_ray.rollout.pool import FinishedGroup, RolloutPool
from mixed_r1_ray.types import Reading, SamplingConfig

DEADLINE_S = 600.0
EXPLAINED = 0.25  # a supposition must leave at most this part of the mean difference (choice)
TEMPERATURES = 4.0  # looked for up to so many times the configured one, up and down (choice)


def mismatch(groups: Sequence[FinishedGroup], trainer: Sequence[np.ndarray], guard: Guard) -> list[TokenDifferences]:
    """Engine and trainer on every response token, group by group."""
    engine = fetch([one.group for one in groups], what="probe responses", deadline_s=DEADLINE_S)
    return [
        TokenDifferences.of(np.concatenate([rollout.logprobs for rollout in group.rollouts]), numbers, guard.likely)
        for group, numbers in zip(engine, trainer, strict=True)
    ]


class Diagnosis:
    """Of groups on which the engine's log-probabilities differ from the trainer's by `differences`, one a group."""

    def __init__(
        self,
        groups: Sequence[FinishedGroup],
        differences: Sequence[TokenDifferences],
        rollout: RolloutPool,
        learners: LearnerGroup,
        guard: Guard,
    ):
        self.groups, self.differences = list(groups), list(differences)
        self.rollout, self.learners, self.guard = rollout, learners, guard

    def cause(self, sampling: SamplingConfig, step: int) -> str:
        """The first supposition that fits, cheap ones first; else a description of where they differ."""
        for fits, cause in self._suppositions(sampling, step):
            if fits:
                return cause
        return self._pattern()

    def _suppositions(self, sampling: SamplingConfig, step: int) -> Iterator[tuple[bool, str]]:
        alone = [difference for one in self.groups for difference in mismatch([one], self.learners.logprobs([one]), self.guard)]
        yield self._explains(alone), (
            "prompts of a batch leak into each other in the trainer: each by itself agrees, several do not"
        )
        for shift, direction in ((-1, "late"), (1, "early")):
            fits = self._fits(Reading(shift=shift))
            yield fits, f"an off-by-one shift: the trainer reads its log-probabilities one token too {direction}"
        own = self._fits(Reading(own_positions=True))
        yield own, "wrong position ids in the trainer: it agrees with those that transformers computes"
        yield self._fits(Reading(ban=False)), "the engine does not ban media tokens, the trainer does"
        yield from self._swapped_pictures()
        temperature = self._likeliest_temperature()
        fits = self._fits(Reading(temperature=temperature))
        configured = self.learners.config.rollout.temperature
        at_fault = "trainer does not divide by" if np.isclose(temperature, configured) else "engine does not sample at"
        yield fits, (
            f"wrong temperature: they agree at {temperature:.4g}, and the {at_fault} rollout.temperature {configured:g}"
        )
        yield self._agrees_after_loading(sampling, step), (
            "stale weights in the engine: given the trainer's once more it agrees, so a sync was lost or incomplete"
        )

    def _fits(self, reading: Reading) -> bool:
        return self._explains(mismatch(self.groups, self.learners.logprobs(self.groups, reading), self.guard))

    def _explains(self, differences: Sequence[TokenDifferences]) -> bool:
        """Whether the differences are gone: within the guard's limits, and small beside what they were."""
        left, before = TokenDifferences.joined(differences), TokenDifferences.joined(self.differences)
        return self._gone(left, before)

    def _gone(self, left: TokenDifferences, before: TokenDifferences) -> bool:
        return self.guard.allows(left) and bool(left.sizes.mean() <= EXPLAINED * before.sizes.mean())

    def _swapped_pictures(self) -> Iterator[tuple[bool, str]]:
        """Every other prompt's pictures of the same sizes, for the prompt that differs most."""
        worst = max(range(len(self.groups)), key=lambda number: self.differences[number].sizes.mean())
        asked, before = self.groups[worst], self.differences[worst]
        for other in self.groups:
            if other is asked or not asked.prompt.image_sizes or other.prompt.image_sizes != asked.prompt.image_sizes:
                continue
            read = self.learners.logprobs([asked], Reading(pictures=other.prompt.inputs))
            yield self._gone(mismatch([asked], read, self.guard)[0], before), (
                f"swapped pictures: for prompt {asked.prompt.prompt_id!r} the engine saw those of "
                f"{other.prompt.prompt_id!r}"
            )

    def _likeliest_temperature(self) -> float:
        """The one at which the trainer comes closest to the engine."""
        from scipy.optimize import minimize_scalar

        def distance(log_temperature: float) -> float:
            read = self.learners.logprobs(self.groups, Reading(temperature=float(np.exp(log_temperature))))
            return float(TokenDifferences.joined(mismatch(self.groups, read, self.guard)).sizes.mean())

        middle, reach = np.log(self.learners.config.rollout.temperature), np.log(TEMPERATURES)
        bounds = (middle - reach, middle + reach)
        return float(np.exp(minimize_scalar(distance, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))

    def _agrees_after_loading(self, sampling: SamplingConfig, step: int) -> bool:
        self.rollout.load_weights(self.learners.weights(version=step))
        groups = list(self.rollout.generate([one.prompt for one in self.groups], sampling, step))
        return self._explains(mismatch(groups, self.learners.logprobs(groups), self.guard))

    def _pattern(self) -> str:
        seeing = [bool(one.prompt.image_sizes) for one in self.groups]
        apart = [not self.guard.allows(difference) for difference in self.differences]
        if any(seeing) and not all(seeing) and seeing == apart:
            return "unknown, but only prompts with pictures differ: other pixels are seen, or in other places"
        return f"unknown; {sum(apart)} of {len(apart)} probe prompts differ, {sum(seeing)} of them have pictures"
