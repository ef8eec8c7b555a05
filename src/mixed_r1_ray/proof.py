"""The start-up proof: engine, trainer and reference are one distribution before anything is learned from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixed_r1_ray.guard import Guard
from mixed_r1_ray.policy.group import LearnerGroup
from mixed_r1_ray.remote import fetch
from mixed_r1_ray.rollout.pool import RolloutPool
from mixed_r1_ray.types import Group, Prompt, SamplingConfig

PROBE_TOKENS = 16


def prove(
    prompts: Sequence[Prompt], rollout: RolloutPool, learners: LearnerGroup, references: Sequence, guard: Guard, step: int
) -> float:
    """Samples a few short answers and compares their log-probabilities; returns the largest difference.

    Every engine checks the prompt tokens while it generates, and every forward that image tokens match image features.
    At step 0 the reference must agree as well. Raises NumericsError naming the prompt.
    """
    sampling = SamplingConfig(num_samples=2, max_new_tokens=PROBE_TOKENS)
    worst = 0.0
    for finished in rollout.generate(prompts, sampling, step):
        prompt = finished.prompt
        group: Group = fetch(finished.group, what="probe responses", deadline_s=60.0)
        engine = np.concatenate([sample.logprobs for sample in group.rollouts])
        trainer = np.concatenate(learners.logprobs(prompt, [sample.token_ids for sample in group.rollouts]))
        difference = float(np.abs(engine - trainer).max())
        guard.check_mismatch(step, difference, prompt.prompt_id)
        if step == 0 and references:
            judged = references[0].logprobs.remote(prompt.inputs, finished.group)
            reference = np.concatenate(fetch(judged, what="reference judging a probe", deadline_s=600.0))
            guard.check_initial_kl(float(np.mean(np.expm1(reference - trainer) - (reference - trainer))))
        worst = max(worst, difference)
    return worst
