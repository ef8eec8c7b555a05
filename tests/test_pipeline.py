"""The schedule of generation ahead of learning, with engines that work through what they are given, in order."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from mixed_r1_ray import pipeline as module
from mixed_r1_ray.config import AlgoConfig, Config, RunConfig
from mixed_r1_ray.data.order import BatchOrder
from mixed_r1_ray.guard import NumericsError
from mixed_r1_ray.pipeline import Pipeline, last_step_ahead, uncorrected
from mixed_r1_ray.rollout.pool import FinishedGroup, GroupStream
from mixed_r1_ray.types import Group, GroupInfo, Rollout
from mixed_r1_ray.weight_transfer import make_weight_transfer

TYPES = ["chart", "iou"] * 8


class Engines:
    """Does what it is asked in turn. A group is made when it is looked at, or when it is the turn of something later."""

    def __init__(self):
        self.version, self.done, self.queue = 0, [], []

    def generate(self, prompts, sampling, step):
        stream = Stream(self, prompts, step)
        self.queue.append(stream)
        return stream

    def queue_weights(self, update):
        self.queue.append(update.version)

    def load_weights(self, update):
        self.queue.append(update.version)
        self.work(len(self.queue))

    def work(self, tasks: int) -> None:
        for task in self.queue[:tasks]:
            if isinstance(task, Stream):
                task.make(self.version)
                self.done.append(f"batch {task.step} (v{self.version})")
            else:
                self.version = task
                self.done.append(f"load v{task}")
        self.queue = self.queue[tasks:]


class Stream:
    def __init__(self, engines: Engines, prompts, step: int):
        self.engines, self.prompts, self.step, self.groups = engines, prompts, step, []

    def make(self, version: int) -> None:
        for prompt in self.prompts:
            group = make_group(prompt.prompt_id, version)
            self.groups.append(FinishedGroup(prompt, GroupInfo.of(group), group))

    def ready(self):
        groups, self.groups = self.groups, []
        return groups

    def __iter__(self):
        if self in self.engines.queue:
            self.engines.work(self.engines.queue.index(self) + 1)
        return iter(self.ready())


def make_group(prompt_id: str, version: int) -> Group:
    rollouts = []
    for sample in range(2):
        logprobs = np.asarray([-0.1, -1 / 3, -2.0 - version], np.float32)
        tokens = np.asarray([sample, 7, 300_000], np.int32)
        versions = np.full(3, version, np.int32)
        rollouts.append(Rollout(sample, tokens, logprobs, versions, f"{prompt_id} é\n", sample == 0))
    return Group(prompt_id, np.asarray([1, 2], np.int32), tuple(rollouts))


class Loader:
    def load_batch(self, rows):
        return [SimpleNamespace(prompt_id=f"r{row}") for row in rows]

    def prefetch(self, rows):
        pass


class Scorer:
    """Keeps what it was given."""

    def submit(self, finished, progress):
        return SimpleNamespace(finished=finished, progress=progress)

    def advance(self):
        pass


def make_pipeline(staleness: int, max_steps: int = 6) -> tuple[Pipeline, Engines]:
    config = Config(algo=AlgoConfig(max_staleness=staleness), run=RunConfig(max_steps=max_steps))
    engines = Engines()
    return Pipeline(config, BatchOrder(TYPES, 3, seed=0), Loader(), engines, Scorer()), engines


def hand_over(pipeline: Pipeline, version: int) -> None:
    learners = SimpleNamespace(weights=lambda version: SimpleNamespace(version=version))
    make_weight_transfer(pipeline.config, learners, pipeline.rollout).hand_over(version)


def run(pipeline: Pipeline, steps: range, meanwhile=lambda step: None) -> dict[int, list]:
    """What each step learns from: prompt, version and progress of every group."""
    learned = {}
    for step in steps:
        pipeline.run_ahead(step)
        batch = pipeline.take(step)
        meanwhile(step)
        pipeline.advance()
        hand_over(pipeline, step)
        learned[step] = sorted(
            (one.finished.prompt.prompt_id, one.finished.info.oldest_version, one.progress) for one in batch.groups
        )
    return learned


@pytest.mark.parametrize("staleness", [0, 1, 2, 3])
def test_batch_s_has_weights_of_version_s_minus_1_minus_k(staleness):
    pipeline, _ = make_pipeline(staleness)
    order = BatchOrder(TYPES, 3, seed=0)
    for step, groups in run(pipeline, range(1, 7)).items():
        version = max(0, step - 1 - staleness)
        assert groups == sorted((f"r{row}", version, step / 6) for row in order.batch(step))


def test_engines_get_generations_and_loads_in_the_order_of_the_schedule():
    pipeline, engines = make_pipeline(staleness=1, max_steps=4)
    run(pipeline, range(1, 5))
    engines.work(len(engines.queue))
    assert engines.done == [
        "batch 1 (v0)", "batch 2 (v0)", "load v1", "batch 3 (v1)", "load v2", "batch 4 (v2)", "load v3", "load v4"
    ]  # fmt: skip


def test_without_staleness_the_engines_never_have_anything_ahead():
    pipeline, engines = make_pipeline(staleness=0, max_steps=3)
    run(pipeline, range(1, 4), meanwhile=lambda step: engines.queue.append("nothing") if engines.queue else None)
    assert engines.done == ["batch 1 (v0)", "load v1", "batch 2 (v1)", "load v2", "batch 3 (v2)", "load v3"]


@pytest.mark.parametrize("pace", [0, 1, 99])
def test_pace_of_the_engines_changes_nothing(pace):
    pipeline, engines = make_pipeline(staleness=2)
    other, _ = make_pipeline(staleness=2)
    assert run(pipeline, range(1, 7), meanwhile=lambda step: engines.work(pace)) == run(other, range(1, 7))


def test_generation_of_later_batches_is_under_way_while_a_step_learns():
    pipeline, engines = make_pipeline(staleness=2)
    pipeline.run_ahead(1)
    pipeline.take(1)
    assert [task.step for task in engines.queue] == [2, 3]
    engines.work(1)
    pipeline.advance()
    assert len(pipeline.take(2).groups) == 3  # all of them were sent to their rewards before


def test_what_is_taken_before_anything_runs_ahead_has_the_same_weights():
    """Dynamic sampling refills a batch before it lets the engines go on."""
    pipeline, engines = make_pipeline(staleness=1, max_steps=4)
    for step in range(1, 5):
        batch = pipeline.take(step)
        extra = pipeline.generate(step, [SimpleNamespace(prompt_id="more")])
        pipeline.run_ahead(step)
        hand_over(pipeline, step)
        assert {one.finished.info.oldest_version for one in batch.groups} == {max(0, step - 2)}
        assert [one.finished.info.oldest_version for one in extra] == [step - 1]
    assert engines.done[:6] == [
        "batch 1 (v0)", "batch 1 (v0)", "batch 2 (v0)", "load v1", "batch 2 (v1)", "batch 3 (v1)"
    ]  # fmt: skip


def test_an_engine_that_missed_a_load_is_caught_with_the_prompt():
    pipeline, engines = make_pipeline(staleness=1)
    engines.queue_weights = lambda update: None
    with pytest.raises(NumericsError, match=r"step 3: prompt 'r\d+' was answered with weight version 0, but version 1"):
        run(pipeline, range(1, 4))


def test_nothing_is_generated_for_steps_after_the_last():
    config = Config(algo=AlgoConfig(max_staleness=2), run=RunConfig(max_steps=5))
    assert [last_step_ahead(step, config) for step in (1, 2, 3, 4, 5)] == [3, 4, 5, 5, 5]


def test_a_continued_pipeline_learns_from_what_had_been_generated_ahead(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ray", SimpleNamespace(put=lambda group: group))
    monkeypatch.setattr(module, "fetch", lambda refs, what, deadline_s: refs)
    whole, _ = make_pipeline(staleness=2)
    run(whole, range(1, 4))
    state = json.loads(json.dumps(whole.save(tmp_path)))
    expected = run(whole, range(4, 7))
    fresh, engines = make_pipeline(staleness=2)
    engines.version = 3
    fresh.restore(3, state, tmp_path)
    assert run(fresh, range(4, 7)) == expected
    assert sorted({version for groups in expected.values() for _, version, _ in groups}) == [1, 2, 3]
    assert not any(done.startswith(("batch 4", "batch 5")) for done in engines.done)


def test_a_pipeline_with_nothing_ahead_leaves_no_file(tmp_path):
    pipeline, _ = make_pipeline(staleness=0)
    run(pipeline, range(1, 3))
    assert pipeline.save(tmp_path) == {} and list(tmp_path.iterdir()) == []


def test_uncorrected_staleness_is_warned_of_and_corrected_is_not():
    def warning(**algo):
        return uncorrected(Config(algo=AlgoConfig(**algo)))

    assert "algo.max_staleness 2 with algo.rollout_correction none" in warning(max_staleness=2)
    assert warning(max_staleness=2, rollout_correction="token") is None
    assert warning(max_staleness=2, old_logprobs="rollout") is None
    assert warning() is None


def test_stream_of_nothing_is_at_its_end():
    assert list(GroupStream.of_nothing()) == GroupStream.of_nothing().ready() == []


def test_the_threshold_of_the_iou_reward_rises_over_steps_of_its_own_however_long_the_run():
    for max_steps in (6, 60):
        pipeline, _ = make_pipeline(staleness=0, max_steps=max_steps)
        pipeline.config.reward.iou_mode, pipeline.config.reward.iou_dynamic_steps = "dynamic", 8
        assert [group[2] for step in (1, 2, 3) for group in run(pipeline, [step])[step][:1]] == [1 / 8, 2 / 8, 3 / 8]
