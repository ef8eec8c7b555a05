"""The real training loop, driven one step at a time so that a benchmark can put something else between two steps."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import psutil

from mixed_r1_ray.config import Config
from mixed_r1_ray.config_load import load_config
from mixed_r1_ray.environment import prepare_environment
from mixed_r1_ray.types import EngineFacts

QUIET = ["conf=quickstart", "data.eval=null", "run.dir=runs/benchmarks", "run.resume=overwrite"]


def benchmark_config(settings: Sequence[str]) -> Config:
    """The quickstart's configuration without evaluation; later settings win over earlier ones."""
    config = load_config([*QUIET, *settings])
    prepare_environment(config)
    return config


@dataclass(frozen=True)
class Step:
    """What one step took and made. cpu_seconds: of all actors. lengths: prompt id -> tokens of each response.

    prompt_tokens: of all prompts together.
    """

    seconds: float
    cpu_seconds: float
    metrics: dict[str, float]
    lengths: dict[str, tuple[int, ...]]
    prompt_tokens: int


class Loop:
    """All actors of a run, and the driver's own step."""

    def __init__(self, config: Config, splits: dict[str, str], driver):
        self.config, self.splits = config, splits
        self._watched = _Learners(driver.parts.learners)
        driver.parts = replace(driver.parts, learners=self._watched)
        self._driver = driver
        self._processes = psutil.Process().children(recursive=True)

    @property
    def checkpoints(self):
        """The run's Checkpointer."""
        return self._driver.parts.checkpoints

    def engine_facts(self) -> EngineFacts:
        """What the first engine says that it is."""
        from mixed_r1_ray.remote import fetch

        (engine, *_), deadline_s = self._driver.parts.rollout.workers, self.config.rollout.timeout_s
        return fetch(engine.ready.remote(), what="rollout[0] saying what it is", deadline_s=deadline_s)

    def rows(self, step: int) -> list[int]:
        """Rows of the training split that `step` asks."""
        return self._driver.parts.sampler.pipeline.order.batch(step)

    def step(self, step: int) -> Step:
        begun, cpu_begun = time.perf_counter(), self._cpu_seconds()
        metrics = self._driver.train_step(step)
        seconds, cpu_seconds = time.perf_counter() - begun, self._cpu_seconds() - cpu_begun
        return Step(seconds, cpu_seconds, metrics, self._watched.lengths, self._watched.prompt_tokens)

    def _cpu_seconds(self) -> float:
        """So far, of this process and all that Ray started here, whatever else the machine does."""
        times = [process.cpu_times() for process in (psutil.Process(), *self._processes)]
        return sum(time.user + time.system for time in times)


@contextmanager
def started_loop(config: Config) -> Iterator[Loop]:
    """Starts the run that `config` describes, up to and including the start-up proof."""
    from mixed_r1_ray.actors import create_actors
    from mixed_r1_ray.cluster import connected
    from mixed_r1_ray.data.worker import DataWorker
    from mixed_r1_ray.driver import Driver
    from mixed_r1_ray.runtime.journal import Journal
    from mixed_r1_ray.runtime.run_dir import open_run_dir
    from mixed_r1_ray.startup import prepare_inputs, start_parts

    with open_run_dir(config) as run_dir, Journal(config, run_dir) as journal, connected(config, journal.say) as where:
        config, splits = prepare_inputs(config, journal)
        actors = create_actors(config, where, DataWorker, splits)
        driver = Driver(config, start_parts(config, actors, splits, run_dir, journal), journal)
        driver.sync(0)
        yield Loop(config, splits, driver)


class _Learners:
    """The learners, with a note of the lengths in the last batch."""

    def __init__(self, learners):
        self._learners = learners
        self.lengths: dict[str, tuple[int, ...]] = {}
        self.prompt_tokens = 0

    def __getattr__(self, name: str):
        return getattr(self._learners, name)

    def update(self, batch, meanwhile=None) -> dict[str, float]:
        self.lengths = {group.prompt_id: group.response_lengths for group in batch.groups}
        self.prompt_tokens = sum(group.num_prompt_tokens for group in batch.groups)
        return self._learners.update(batch, meanwhile)
