"""The rollout actor: an `Engine` that reads prompts from the object store and streams groups into it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import ray

from mixed_r1_ray.config import Config
from mixed_r1_ray.guard import Guard
from mixed_r1_ray.rollout.engine import Engine, EngineRequest
from mixed_r1_ray.sync.wire import from_wire
from mixed_r1_ray.types import Group, GroupInfo, Prompt, PromptInputs, SamplingConfig, WeightUpdate
from mixed_r1_ray.whereabouts import observed


@ray.remote
@observed
class RolloutWorker:
    """One vLLM engine. Calls run one after the other."""

    def __init__(self, config: Config):
        self.engine = Engine(config)
        self.guard = Guard.from_config(config)
        self.loaded: int | None = None  # version of the weights that came from learners

    def ready(self) -> bool:
        return True

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

    def sleep(self) -> None:
        """Off its GPU."""
        self.engine.sleep()

    def wake(self) -> None:
        """Back to its GPU, with the weights that it had."""
        self.engine.wake()

    def load_weights(self, update: WeightUpdate) -> int:
        """Takes over a version of the weights from the object store; returns the version."""
        weights = {}
        for bucket in ray.get(list(update.buckets)):
            weights |= {name: from_wire(tensor) for name, tensor in bucket.items()}
        self.engine.load_weights(weights, update.version)
        self.loaded = update.version
        return update.version
