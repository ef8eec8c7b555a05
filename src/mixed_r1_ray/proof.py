"""The start-up proof: engine, trainer and reference are one distribution before anything is learned from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixed_r1_ray.diagnosis import Diagnosis, mismatch
from mixed_r1_ray.guard import Guard, Spread, TokenDifference, TokenDifferences, locate
from mixed_r1_ray.policy.group import LearnerGroup
from mixed_r1_ray.policy.reference_pool import ReferencePool
from mixed_r1_ray.remote import fetch
from mixed_r1_ray.rollout.pool import FinishedGroup, RolloutPool
from mixed_r1_ray.types import Prompt, Reading, SamplingConfig

PROBE_TOKENS = 16


def prove(
    prompts: Sequence[Prompt],
    rollout: RolloutPool,
    learners: LearnerGroup,
    references: ReferencePool,
    guard: Guard,
    step: int,
) -> float:
    """Samples a few short answers and compares their log-probabilities; returns the largest difference.

    Every engine checks the prompt tokens while it generates, and every forward that image tokens match image features.
    The trainer reads all prompts in one batch, laid out as it learns from them. At step 0 the reference must agree as
    well. Raises NumericsError naming the prompt and the likeliest cause.
    """
    temperature = learners.config.rollout.temperature
    sampling = SamplingConfig(num_samples=2, max_new_tokens=PROBE_TOKENS, temperature=temperature)
    groups = list(rollout.generate(prompts, sampling, step))
    trainer = learners.logprobs(groups)
    differences = mismatch(groups, trainer, guard)
    together = TokenDifferences.joined(differences)
    if not guard.allows(together):
        cause = Diagnosis(groups, differences, rollout, learners, guard).cause(sampling, step)
        raise guard.proof_failed(step, Spread.of(together.sizes, _worst(groups, differences)), cause)
    if step == 0:
        _check_reference(groups, trainer, references, learners, guard)
    return float(together.sizes.max())


def _worst(groups: Sequence[FinishedGroup], differences: Sequence[TokenDifferences]) -> TokenDifference:
    """The token furthest beyond its bound, of all groups; differences: one a group."""
    number = int(np.argmax([difference.scaled.max() for difference in differences]))
    token = int(differences[number].scaled.argmax())
    info = groups[number].info
    return differences[number].token(token, info.prompt_id, *locate(token, info.response_lengths))


def _check_reference(
    groups: Sequence[FinishedGroup],
    trainer: Sequence[np.ndarray],
    references: ReferencePool,
    learners: LearnerGroup,
    guard: Guard,
) -> None:
    """Where there is one: an actor, or under LoRA the learners' model without its adapters."""
    if references:
        judged = [references.ask(one.prompt.inputs, one.group).logprobs for one in groups]
        answers = fetch(judged, what="reference judging probes", deadline_s=references.timeout_s)
        reference = [np.concatenate(answer) for answer in answers]
    elif learners.config.learner.lora_rank:
        reference = learners.logprobs(groups, Reading(adapters=False))
    else:
        return
    for numbers, others in zip(trainer, reference, strict=True):
        guard.check_initial_kl(float(np.mean(np.expm1(others - numbers) - (others - numbers))))
