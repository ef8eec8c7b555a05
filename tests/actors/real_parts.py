"""A real engine and real learners side by side, as a run has them, without the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import ray

from mixed_r1_ray.config import Config
from mixed_r1_ray.data.schema import Record
from mixed_r1_ray.data.worker import prepare_prompt
from mixed_r1_ray.experience import Experience, make_batch
from mixed_r1_ray.guard import Guard
from mixed_r1_ray.policy.group import LearnerGroup
from mixed_r1_ray.proof import prove
from mixed_r1_ray.rollout.pool import FinishedGroup, RolloutPool
from mixed_r1_ray.rollout.worker import RolloutWorker
from mixed_r1_ray.runtime import checkpoints
from mixed_r1_ray.types import Prompt, RewardBreakdown, SamplingConfig, SaveRequest, TrainBatch
from mixed_r1_ray.vlm.base import VLMAdapter
from mixed_r1_ray.vlm.families import load_adapter

Rewards = Callable[[FinishedGroup], Sequence[float | None]]


def save(learners: LearnerGroup, root: Path) -> Path:
    """Writes a checkpoint as a run does; returns its folder."""
    folder = checkpoints.begin(root, 0)
    learners.save(SaveRequest(str(folder), {"step": 0}, {}, keep=None, spare=None, deadline_s=60.0))
    learners.await_save()
    return checkpoints.folder_of(root, 0)


@dataclass
class RealParts:
    config: Config
    adapter: VLMAdapter
    learners: LearnerGroup
    rollout: RolloutPool
    guard: Guard
    start_folder: Path

    @classmethod
    def start(
        cls, path: str, settings: Mapping[str, object], start_learners: Callable[[Config], LearnerGroup], folder: Path
    ) -> RealParts:
        """settings: `section.field` -> value, besides those that suit a test."""
        config = Config()
        config.model.path = path
        config.model.max_tiles = 3 if "internvl" in path else None  # off in the checkpoint
        config.rollout.temperature = 0.8
        config.algo.beta = 0.0
        config.learner.num_workers = 2
        config.learner.learning_rate = 1e-2  # one update, and a stale engine shows
        for key, value in settings.items():
            section, name = key.split(".")
            setattr(getattr(config, section), name, value)
        engine = RolloutWorker.options(num_cpus=0).remote(config)  # starts beside the learners
        learners = start_learners(config)
        rollout, guard = RolloutPool([engine], 300.0), Guard.from_config(config)
        return cls(config, load_adapter(config.model), learners, rollout, guard, save(learners, folder))

    def end(self) -> None:
        for worker in (*self.learners.workers, *self.rollout.workers):
            ray.kill(worker)

    def begin_anew(self) -> None:
        self.learners.load(self.start_folder)
        self.sync()

    def sync(self, version: int = 0) -> None:
        self.rollout.load_weights(self.learners.weights(version))

    def prompt(self, prompt_id: str, sizes: Sequence[tuple[int, int]], question: str = "Where?") -> Prompt:
        """Of pictures of noise, (width, height) each."""
        random = np.random.default_rng(list(prompt_id.encode()))
        images = tuple(random.integers(0, 255, (height, width, 3), dtype=np.uint8) for width, height in sizes)
        record = Record(prompt_id, "noise", "matching", (), (), question, "yes")
        prepared = prepare_prompt(record, images, self.adapter, self.config)
        return replace(prepared.prompt, images=ray.put(prepared.images), inputs=ray.put(prepared.inputs))

    def sample(self, prompts: Sequence[Prompt], max_new_tokens: int = 16, step: int = 1) -> list[FinishedGroup]:
        sampling = SamplingConfig(4, max_new_tokens, self.config.rollout.temperature)
        return sorted(self.rollout.generate(prompts, sampling, step), key=lambda group: group.prompt.prompt_id)

    def batch(self, groups: Sequence[FinishedGroup], rewards: Rewards, step: int = 1) -> TrainBatch:
        """As the driver makes it. rewards: of a group's samples; None where one could not be scored."""
        experiences = [
            Experience(
                group.prompt,
                group.info,
                group.group,
                tuple(RewardBreakdown("matching", reward, reward, None, "") for reward in rewards(group)),
                None,
            )
            for group in groups
        ]
        return make_batch(step, experiences, self.config)

    def prove(self, prompts: Sequence[Prompt], step: int = 1) -> float:
        return prove(prompts, self.rollout, self.learners, [], self.guard, step)

    @contextmanager
    def planted(self, where: str, plant: Callable):
        """Holds a fault in every actor of `learners` or `rollout`. plant(worker) returns what mends it."""

        def put_in(worker) -> None:
            worker.mend = plant(worker)

        def take_out(worker) -> None:
            worker.mend()

        workers = getattr(self, where).workers
        ray.get([worker.__ray_call__.remote(put_in) for worker in workers])
        try:
            yield
        finally:
            ray.get([worker.__ray_call__.remote(take_out) for worker in workers])
