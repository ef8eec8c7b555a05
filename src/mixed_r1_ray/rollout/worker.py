"""The rollout actor: an `Engine` that reads prompts from the object store and streams groups into it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import ray

from mixed_r1_ray.config import Config
from mixed_r1_ray.gpu_memory import forget_peak, peak_bytes
from mixed_r1_ray.guard import Guard
from mixed_r1_ray.rollout.engine import Engine, EngineRequest
from mixed_r1_ray.sync.broadcast import Meeting
from mixed_r1_ray.sync.shared import SharedBucket
from mixed_r1_ray.sync.sources import BroadcastWeights, SharedWeights, StoredWeights, WeightSource
from mixed_r1_ray.types import Bucket, EngineFacts, Group, GroupInfo, Layout, Prompt, PromptInputs, SamplingConfig, WeightUpdate
from mixed_r1_ray.whereabouts import observed


@ray.remote
@observed
class RolloutWorker:
    """One vLLM engine. Calls run one after the other."""

    def __init__(self, config: Config):
        self.engine = Engine(config)
        self.guard = Guard.from_config(config)
        self.loaded: int | None = None  # version of the weights that came from learners
        self.constant: tuple[Bucket, ...] = ()  # those that it has of what no version changes

    def ready(self) -> EngineFacts:
        return self.engine.facts()

    def generate(
        self, prompts: Sequence[Prompt], sampling: SamplingConfig, step: int, update: WeightUpdate | None = None
    ) -> Iterator[Group | GroupInfo]:
        """Streams two objects a finished group: the Group, then its GroupInfo, small enough for the driver.

        update: the weights to do it with, loaded first where this engine has others. Raises NumericsError where the
        engine's prompt tokens are not the trainer's.
        """
        if update is not None and update.version != self.loaded:
            self.load_weights(update)
        inputs: dict[str, PromptInputs] = dict(
            zip((prompt.prompt_id for prompt in prompts), ray.get([prompt.inputs for prompt in prompts]), strict=True)
        )
        images = ray.get([prompt.images for prompt in prompts])
        requests = [
            EngineRequest(prompt.prompt_id, prompt.text, pictures)
            for prompt, pictures in zip(prompts, images, strict=True)
        ]
        for group in self.engine.generate(requests, sampling, step):
            self.guard.check_prompt_ids(group.prompt_id, group.prompt_token_ids, inputs[group.prompt_id].input_ids)
            self.guard.check_media_tokens(group, self.engine.adapter.banned_token_ids)
            yield group
            yield GroupInfo.of(group)

    def sleep(self) -> int | None:
        """Off its GPU; returns the most bytes that were in use there."""
        peak = peak_bytes()
        self.engine.sleep()
        return peak

    def wake(self) -> None:
        """Back to its GPU, with the weights that it had; its KV cache follows when it generates."""
        forget_peak()
        self.engine.wake()

    def load_weights(self, update: WeightUpdate) -> int:
        """Takes over a version of the weights from the object store; returns the version."""
        self._take_over(update.version, _stored(update.changing), update.constant)
        return update.version

    def join_broadcast(self, meeting: Meeting, first_rank: int) -> None:
        """Enters the group in which learners send weights. first_rank: of this engine's workers."""
        self.engine.join_broadcast(meeting, first_rank)

    def receive_weights(self, version: int, layouts: tuple[Layout, ...], constant: tuple[Bucket, ...]) -> None:
        """Takes over a version that the first learner is sending to the group."""
        self._take_over(version, BroadcastWeights(layouts), constant)

    def borrow_weights(self, version: int, shared: tuple[SharedBucket, ...], constant: tuple[Bucket, ...]) -> None:
        """Takes over a version that lies in the memory of a learner on the same device."""
        self._take_over(version, SharedWeights(shared), constant)

    def _take_over(self, version: int, changing: WeightSource, constant: tuple[Bucket, ...]) -> None:
        """`constant`: what no version changes, in the object store; read the first time alone."""
        parts: dict[str, WeightSource] = {"changing": changing}
        if constant != self.constant:
            parts["constant"] = _stored(constant)
        self.engine.load_weights(parts, version)
        self.constant, self.loaded = constant, version


def _stored(buckets: tuple[Bucket, ...]) -> StoredWeights:
    contents = ray.get([bucket.content for bucket in buckets])
    return StoredWeights(tuple((bucket.layout, content) for bucket, content in zip(buckets, contents, strict=True)))
