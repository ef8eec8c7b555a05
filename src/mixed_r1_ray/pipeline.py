"""Generation ahead of learning: which batch is generated with which weights, and what of it is under way.

Before a step learns, generation of the batch `algo.max_staleness` = k steps later is handed to the engines, which work
through generations and weight loads in the order in which they are given:

    k = 1   engines   batch 1 (v0)  batch 2 (v0)  load v1  batch 3 (v1)  load v2  batch 4 (v2)
            learners                batch 1 -> v1          batch 2 -> v2          batch 3 -> v3

So batch s has weights of version max(0, s - 1 - k), whatever takes how long. At k = 0 nothing is ahead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from mixed_r1_ray.config import Config
from mixed_r1_ray.data.draws import PromptDraws
from mixed_r1_ray.data.loader import PromptLoader
from mixed_r1_ray.data.order import Order
from mixed_r1_ray.experience import PendingExperience, Scorer
from mixed_r1_ray.guard import Guard
from mixed_r1_ray.remote import fetch
from mixed_r1_ray.rollout.pool import FinishedGroup, GroupStream, RolloutPool
from mixed_r1_ray.runtime.group_file import read_groups, write_groups
from mixed_r1_ray.schedules import iou_threshold_steps
from mixed_r1_ray.types import GroupInfo, Prompt, SamplingConfig

GROUPS_FILE = "ahead.parquet"


@dataclass
class BatchUnderWay:
    """A batch in the engines' hands or further. `groups`: finished, and on their way to their rewards."""

    step: int  # that will learn from it
    version: int  # of the weights
    rows: list[int]
    stream: GroupStream
    groups: list[PendingExperience] = field(default_factory=list)


class Pipeline:
    """Generates the batches of the order one after the other, up to `algo.max_staleness` ahead."""

    def __init__(
        self,
        config: Config,
        order: Order | PromptDraws,
        loader: PromptLoader,
        rollout: RolloutPool,
        scorer: Scorer,
    ):
        self.config, self.order, self.loader = config, order, loader
        self.rollout, self.scorer, self.guard = rollout, scorer, Guard.from_config(config)
        self.sampling = SamplingConfig(
            config.rollout.group_size, config.rollout.max_new_tokens, config.rollout.temperature
        )
        self.last_step = 0  # whose batch was handed out
        self._batches: dict[int, BatchUnderWay] = {}

    def run_ahead(self, step: int) -> None:
        """Starts the batches that may be generated with the weights that `step` begins with."""
        self._start_until(last_step_ahead(step, self.config), version=step - 1)

    def take(self, step: int) -> BatchUnderWay:
        """The step's batch, wholly generated. Steps come in order."""
        self._start_until(step, version=step - 1)
        batch = self._batches.pop(step)
        self._finish(batch)
        return batch

    def generate(self, step: int, prompts: Sequence[Prompt]) -> list[PendingExperience]:
        """Groups of further prompts for the step, with the weights of now."""
        extra = BatchUnderWay(step, step - 1, [], self.rollout.generate(prompts, self.sampling, step))
        self._finish(extra)
        return extra.groups

    def advance(self) -> None:
        """Sends to the rewards and the reference whatever has been finished meanwhile; does not wait."""
        for batch in self._batches.values():
            for finished in batch.stream.ready():
                self._submit(batch, finished)
        self.scorer.advance()

    def probes(self, count: int) -> list[Prompt]:
        """Some of the prompts of the next batch to be handed out."""
        return self.loader.load_batch(self.order.batch(self.last_step + 1)[:count])

    def save(self, folder: Path) -> dict[str, Any]:
        """Waits for what is under way and writes it into `folder`; what else `restore` wants, as JSON."""
        for batch in self._batches.values():
            self._finish(batch)
        if self._batches:
            groups = {
                step: fetch([one.finished.group for one in batch.groups], what=f"batch {step}", deadline_s=60.0)
                for step, batch in self._batches.items()
            }
            write_groups(folder / GROUPS_FILE, groups)
        return {str(step): {"version": batch.version, "rows": batch.rows} for step, batch in self._batches.items()}

    def restore(self, step: int, ahead: dict[str, Any], folder: Path) -> None:
        """Goes on after `step` with what `save` returned and wrote, and forgets all else."""
        self._batches = {}
        self.last_step = max([step, *map(int, ahead)])
        written = read_groups(folder / GROUPS_FILE) if ahead else {}
        for number, kept in ahead.items():
            batch = BatchUnderWay(int(number), kept["version"], kept["rows"], GroupStream.of_nothing())
            prompts = {prompt.prompt_id: prompt for prompt in self.loader.load_batch(batch.rows)}
            for group in written[batch.step]:
                self._submit(batch, FinishedGroup(prompts[group.prompt_id], GroupInfo.of(group), ray.put(group)))
            self._batches[batch.step] = batch

    def _start_until(self, last_step: int, version: int) -> None:
        for step in range(self.last_step + 1, last_step + 1):
            rows = self.order.batch(step)
            prompts = self.loader.load_batch(rows)
            self.loader.prefetch(self.order.batch(step + 1))
            stream = self.rollout.generate(prompts, self.sampling, step)
            self._batches[step] = BatchUnderWay(step, version, rows, stream)
            self.last_step = step

    def _finish(self, batch: BatchUnderWay) -> None:
        for finished in batch.stream:
            self._submit(batch, finished)

    def _submit(self, batch: BatchUnderWay, finished: FinishedGroup) -> None:
        self.guard.check_version(batch.step, finished.info.prompt_id, finished.info.oldest_version, batch.version)
        progress = batch.step / iou_threshold_steps(self.config)
        batch.groups.append(self.scorer.submit(finished, progress))


def last_step_ahead(step: int, config: Config) -> int:
    """The last step whose batch is generated with the weights that `step` begins with."""
    return max(step, min(step + config.algo.max_staleness, config.run.max_steps))


def uncorrected(config: Config) -> str | None:
    """A warning where samples of older weights are taken for the current policy's."""
    algo = config.algo
    if algo.max_staleness and algo.rollout_correction == "none" and algo.old_logprobs == "trainer":
        return (
            f"algo.max_staleness {algo.max_staleness} with algo.rollout_correction none: the loss takes tokens of "
            f"weights up to {algo.max_staleness} versions old for the current policy's; algo.rollout_correction=token "
            "corrects for it"
        )
    return None
