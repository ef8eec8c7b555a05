"""Scores the policy on the held-out split: every prompt once greedily and once sampled as in training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixed_r1_ray.config import Config
from mixed_r1_ray.data.loader import PromptLoader
from mixed_r1_ray.data.reader import UsableRows
from mixed_r1_ray.experience import Experience, Scorer, as_pair
from mixed_r1_ray.remote import fetch
from mixed_r1_ray.rollout.pool import RolloutPool
from mixed_r1_ray.runtime.evaluation_table import EvalResult
from mixed_r1_ray.types import Group, SamplingConfig

CHUNK = 256  # prompts prepared and in flight at a time
SEED_STEP = 0  # evaluations are seeded alike, so that before and after differ by the policy alone


class Evaluator:
    """Evaluates whatever weights the engines hold."""

    def __init__(
        self,
        config: Config,
        loader: PromptLoader,
        rows: UsableRows,
        rollout: RolloutPool,
        scorer: Scorer,
    ):
        self.loader, self.rollout, self.scorer = loader, rollout, scorer
        self.indices = choose(rows, config.eval.prompts_per_type)
        length, temperature = config.rollout.max_new_tokens, config.rollout.temperature
        self.modes = {
            "greedy": SamplingConfig(1, length, greedy=True),
            "sampled": SamplingConfig(1, length, temperature),
        }

    def run(self) -> list[EvalResult]:
        """One result a prompt and mode."""
        chunks = [self.indices[start : start + CHUNK] for start in range(0, len(self.indices), CHUNK)]
        results = []
        for chunk, following in zip(chunks, [*chunks[1:], []], strict=True):
            prompts = self.loader.load(chunk)
            self.loader.prefetch(following)
            for mode, sampling in self.modes.items():
                groups = self.rollout.generate(prompts, sampling, SEED_STEP)
                pending = self.scorer.submit_all(groups, progress=0.0, with_reference=False)
                results.extend(_results(mode, self.scorer.collect(pending)))
        return results


def choose(rows: UsableRows, per_type: int | None) -> list[int]:
    """The first `per_type` rows of each reward type; all where it is None."""
    by_type = (np.flatnonzero(rows.reward_type == code) for code in range(len(rows.reward_types)))
    return sorted(int(index) for indices in by_type for index in indices[:per_type])


def _results(mode: str, experiences: Sequence[Experience]) -> list[EvalResult]:
    refs = [experience.group for experience in experiences]
    groups: list[Group] = fetch(refs, what="responses of the evaluation", deadline_s=60.0)
    return [
        EvalResult(
            prompt_id=experience.prompt.prompt_id,
            reward_type=experience.prompt.reward_type,
            source=experience.prompt.source,
            mode=mode,
            total=reward.total,
            task=reward.task,
            format=reward.format,
            response=group.rollouts[0].text,
            detail=reward.detail,
            question=experience.prompt.question,
            answer=experience.prompt.answer,
            image_size=experience.prompt.image_sizes[0] if experience.prompt.image_sizes else None,
            box_frame=as_pair(experience.prompt.box_frame),
        )
        for experience, group in zip(experiences, groups, strict=True)
        for reward in experience.rewards
    ]
