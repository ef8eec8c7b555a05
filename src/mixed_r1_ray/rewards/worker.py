"""The reward actors, and the pool that gets every group scored by one of them or says why not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import ray
from ray import ObjectRef

from mixed_r1_ray.config import Config
from mixed_r1_ray.remote import ActorFailure, fetch
from mixed_r1_ray.rewards import EmbeddingTable, RewardOptions, RewardRequest, score_batch
from mixed_r1_ray.types import Group, Prompt, RewardBreakdown


@ray.remote
class RewardWorker:
    """Scores groups. Holds the rows of the embedding matrix that captions have used so far, and no model."""

    def __init__(self, config: Config):
        reward = config.reward
        self.embeddings = EmbeddingTable.from_checkpoint(config.model.path)
        self.options = RewardOptions(
            task_weight=reward.task_weight,
            format_weight=reward.format_weight,
            chart_mode=reward.chart_mode,
            iou_mode=reward.iou_mode,
            iou_threshold=reward.iou_threshold,
            bmas_mode=reward.bmas_mode,
        )

    def ready(self) -> bool:
        return True

    def score(self, prompt: Prompt, group: Group, progress: float) -> tuple[RewardBreakdown, ...]:
        """One breakdown a response, in order. progress: fraction of the run done, for the dynamic IoU threshold."""
        requests = [
            RewardRequest(
                reward_type=prompt.reward_type,
                response=rollout.text,
                gold=prompt.answer,
                question=prompt.question,
                choices=prompt.choices,
                image_size=prompt.image_sizes[0] if prompt.image_sizes else None,
                box_frame=prompt.box_frame,
            )
            for rollout in group.rollouts
        ]
        return tuple(score_batch(requests, embeddings=self.embeddings, options=replace(self.options, progress=progress)))


@dataclass(frozen=True, slots=True)
class PendingScore:
    """A group that is being scored."""

    prompt: Prompt
    group: ObjectRef
    num_samples: int
    progress: float
    worker: int
    answer: ObjectRef


class RewardPool:
    """Spreads groups over the workers; one that fails is tried once more elsewhere, then counts as unscored."""

    def __init__(self, workers: Sequence, timeout_s: float, warn: Callable[[str], None]):
        self.workers = list(workers)
        self.timeout_s = timeout_s
        self.warn = warn
        self._turn = 0

    def submit(self, prompt: Prompt, group: ObjectRef, num_samples: int, progress: float) -> PendingScore:
        """Starts scoring; returns at once."""
        self._turn = (self._turn + 1) % len(self.workers)
        light = replace(prompt, images=None, inputs=None)
        return self._send(light, group, num_samples, progress, self._turn)

    def collect(self, pending: PendingScore) -> tuple[RewardBreakdown, ...]:
        """The group's rewards; all None, with a warning that names the cause, where two workers could not score it."""
        try:
            return self._fetch(pending)
        except ActorFailure as first:
            retry = (pending.worker + 1) % len(self.workers)
            again = self._send(pending.prompt, pending.group, pending.num_samples, pending.progress, retry)
            try:
                return self._fetch(again)
            except ActorFailure as second:
                self.warn(f"prompt {pending.prompt.prompt_id!r} ({pending.prompt.source}) was not scored: {second}")
                return (_unscored(pending.prompt, f"{first}; {second}"),) * pending.num_samples

    def _send(self, prompt: Prompt, group: ObjectRef, num_samples: int, progress: float, worker: int) -> PendingScore:
        answer = self.workers[worker].score.remote(prompt, group, progress)
        return PendingScore(prompt, group, num_samples, progress, worker, answer)

    def _fetch(self, pending: PendingScore) -> tuple[RewardBreakdown, ...]:
        what = f"reward[{pending.worker}] scoring prompt {pending.prompt.prompt_id!r}"
        return fetch(pending.answer, what=what, deadline_s=self.timeout_s)


def _unscored(prompt: Prompt, reason: str) -> RewardBreakdown:
    return RewardBreakdown(prompt.reward_type, None, None, None, reason)
