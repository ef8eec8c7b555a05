"""The reward actor. How groups reach one and what happens when it dies is `rewards.pool`'s business."""

from __future__ import annotations

from collections.abc import Sequence

import ray

from mixed_r1_ray.config import Config
from mixed_r1_ray.rewards import EmbeddingTable, RewardSample, RewardScorer
from mixed_r1_ray.types import Group, Prompt, RewardBreakdown
from mixed_r1_ray.whereabouts import observed


@ray.remote(max_restarts=-1)
@observed
class RewardWorker:
    """Scores groups. Holds the rows of the embedding matrix that captions have used so far, and no model."""

    def __init__(self, config: Config):
        self.scorer = RewardScorer.from_config(
            config.reward, EmbeddingTable.from_checkpoint(config.model.path)
        )

    @ray.method(max_task_retries=-1)  # so that a process that is being restarted answers once it is there
    def ready(self) -> bool:
        return True

    def score(
        self, prompts: Sequence[Prompt], progress: float, *groups: Group
    ) -> list[tuple[RewardBreakdown, ...]]:
        """One tuple a group, one breakdown a response, in order; all groups are scored as one batch.

        groups: one a prompt, passed as references. progress: fraction of the run done, for iou_mode=dynamic.
        """
        samples = [samples_of(prompt, group) for prompt, group in zip(prompts, groups, strict=True)]
        flat = [sample for group in samples for sample in group]
        breakdowns = iter(self.scorer.score(flat, progress=progress))
        return [tuple(next(breakdowns) for _ in group) for group in samples]


def samples_of(prompt: Prompt, group: Group) -> list[RewardSample]:
    """What there is to score of a group, ordered by sample_index."""
    return [
        RewardSample(
            reward_type=prompt.reward_type,
            response=rollout.text,
            gold=prompt.answer,
            question=prompt.question,
            choices=prompt.choices,
            image_size=prompt.image_sizes[0] if prompt.image_sizes else None,
            box_frame=prompt.box_frame,
            prompt_id=prompt.prompt_id,
            source=prompt.source,
            sample_index=rollout.sample_index,
        )
        for rollout in group.rollouts
    ]
