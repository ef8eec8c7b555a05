"""Five optimizer steps end at the same parameters, whoever shares the work and however it is cut.

Every way is held against a plain one: a transformers forward for each sample with its own pictures, GRPO's loss written
out, torch's AdamW. Learning rates are small beside the limit's 1e-5 for a reason: AdamW's first steps are as long as the
learning rate whatever the gradient's size, so where a gradient is rounding noise, and a few of a million are, its sign
and with it a whole step may differ. Parameters move 25 times as far as they may differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import ray
import torch
from weight_buckets import all_contents

from mixed_r1_ray.policy.group import LearnerGroup
from mixed_r1_ray.policy.microbatches import plan_microbatches
from mixed_r1_ray.types import TrainBatch, TrainGroup

from .real_parts import save
from .recorded_batches import RecordedGroup, configuration, in_store, plain_trajectory, record

LIMIT = 1e-5
SINGLY, BY_GROUP, AT_ONCE = 1, 80, 8192  # learner.microbatch_tokens
Parameters = dict[str, torch.Tensor]


@dataclass
class Course:
    """Batches to learn from, and where the plain way gets with them."""

    path: str
    batches: list[list[RecordedGroup]]
    start: Parameters
    end: Parameters


@dataclass
class Learners:
    """A group of ranks that can go back to its start and learn again, in other microbatches."""

    group: LearnerGroup
    start: Path

    def trajectory(self, batches: list[list[RecordedGroup]], microbatch_tokens: int) -> Parameters:
        def set_microbatch_tokens(worker) -> None:  # in here, so that it travels by value
            worker.learner.config.learner.microbatch_tokens = microbatch_tokens

        ray.get([worker.__ray_call__.remote(set_microbatch_tokens) for worker in self.group.workers])
        self.group.load(self.start)
        for step, batch in enumerate(batches, start=1):
            self.group.update(in_store(batch, step))
        return all_contents(self.group.weights(len(batches)))


@pytest.fixture(scope="module")
def course(tiny_checkpoints) -> Callable[[str], Course]:
    made: dict[str, Course] = {}

    def course(family: str) -> Course:
        if family not in made:
            config, batches = configuration(tiny_checkpoints[family]), record(tiny_checkpoints[family])
            start = plain_trajectory(config, [])
            made[family] = Course(config.model.path, batches, start, plain_trajectory(config, batches))
        return made[family]

    return course


@pytest.fixture(scope="module")
def learners(start_learners, tiny_checkpoints, tmp_path_factory) -> Callable[[str, int], Learners]:
    started: dict[tuple[str, int], Learners] = {}

    def learners(family: str, num_ranks: int) -> Learners:
        if (family, num_ranks) not in started:
            group = start_learners(configuration(tiny_checkpoints[family], num_workers=num_ranks))
            started[family, num_ranks] = Learners(group, save(group, tmp_path_factory.mktemp("start")))
        return started[family, num_ranks]

    yield learners
    for one in started.values():
        for worker in one.group.workers:
            ray.kill(worker)


def distance(one: Parameters, two: Parameters) -> float:
    assert one.keys() == two.keys()
    return max(float((one[name] - two[name]).abs().max()) for name in one)


def test_the_course_leads_somewhere_and_each_sample_matters(course):
    """What follows could not fail otherwise."""
    internvl = course("internvl")
    assert distance(internvl.start, internvl.end) > 20 * LIMIT
    first = internvl.batches[0][0]
    altered = [replace(first, advantages=[None, *first.advantages[1:]]), *internvl.batches[0][1:]]
    config = configuration(internvl.path)
    assert distance(plain_trajectory(config, [altered, *internvl.batches[1:]]), internvl.end) > 5 * LIMIT


@pytest.mark.parametrize(
    ("num_ranks", "tokens", "accumulation"),
    [(1, SINGLY, 16), (1, BY_GROUP, 4), (1, AT_ONCE, 1), (2, BY_GROUP, 2), (2, AT_ONCE, 1), (4, AT_ONCE, 1)],
)
def test_the_course_is_cut_as_the_tests_say(course, num_ranks, tokens, accumulation):
    """16 samples of four groups: each alone, a group at a time, all at once."""
    plan = plan_microbatches(_lengths(course("internvl").batches[0]), num_ranks, tokens)
    assert [len(microbatches) for microbatches in plan] == [accumulation] * num_ranks


def _lengths(batch: list[RecordedGroup]) -> TrainBatch:
    groups = tuple(
        TrainGroup("", len(g.inputs.input_ids), tuple(map(len, g.responses)), tuple(g.advantages), None, None, None)
        for g in batch
    )
    return TrainBatch(1, groups, 16, 0)


@pytest.mark.parametrize(
    ("family", "num_ranks", "tokens"),
    [
        ("internvl", 1, BY_GROUP),
        ("internvl", 1, AT_ONCE),
        ("internvl", 2, BY_GROUP),
        *(
            pytest.param(family, ranks, tokens, marks=pytest.mark.slow)
            for family, ranks, tokens in [
                ("internvl", 1, SINGLY),
                ("internvl", 2, SINGLY),
                ("internvl", 2, AT_ONCE),
                ("internvl", 4, SINGLY),
                ("internvl", 4, AT_ONCE),
                *(("qwen2_5_vl", ranks, tokens) for ranks in (1, 2, 4) for tokens in (SINGLY, BY_GROUP, AT_ONCE)),
            ]
        ),
    ],
)
def test_five_steps_end_where_plain_ones_do(course, learners, family, num_ranks, tokens):
    expected = course(family)
    got = learners(family, num_ranks).trajectory(expected.batches, tokens)
    assert distance(got, expected.end) <= LIMIT
