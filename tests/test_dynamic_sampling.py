"""Which groups a step learns from, and how many more are sampled, with stand-ins for the actors."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mixed_r1_ray.clock import Clock
from mixed_r1_ray.config import AlgoConfig, Config, RewardConfig
from mixed_r1_ray.data.order import BatchOrder
from mixed_r1_ray.dynamic_sampling import InformativeGroups
from mixed_r1_ray.experience import Experience
from mixed_r1_ray.rollout.pool import FinishedGroup
from mixed_r1_ray.runtime.metric_names import check_names
from mixed_r1_ray.sampler import Sampler
from mixed_r1_ray.types import GroupInfo, Prompt, RewardBreakdown

ROWS = 24
TYPES = ["chart", "iou"] * (ROWS // 2)


def experience(row: int, totals: list[float | None], kind: str) -> Experience:
    prompt = Prompt(f"r{row:02d}", "shapes", kind, "?", "yes", None, (), None, "…", num_tokens=5)
    rewards = tuple(RewardBreakdown(kind, total, total, 0.0, "") for total in totals)
    info = GroupInfo(prompt.prompt_id, (3,) * len(totals), (True,) * len(totals), oldest_version=0)
    return Experience(prompt, info, None, rewards, None)


def telling(row: int, kind: str) -> Experience:
    return experience(row, [1.0, 0.0], kind)


def flat(row: int, kind: str) -> Experience:
    return experience(row, [1.0, 1.0], kind)


def test_missing_are_the_wanted_of_a_type_less_those_that_differ():
    groups = InformativeGroups(["chart", "iou", "iou"])
    groups.add([telling(0, "chart"), flat(1, "iou"), telling(2, "iou")])
    assert groups.missing() == ["iou"]
    groups.add([telling(3, "iou")])
    assert groups.missing() == []
    assert [one.prompt.prompt_id for one in groups.batch()] == ["r00", "r02", "r03"]
    assert len(groups.generated) == 4


def test_a_group_of_one_scored_sample_tells_nothing_and_none_of_another_type_takes_its_place():
    groups = InformativeGroups(["chart", "iou"])
    groups.add([experience(0, [1.0, None], "chart"), telling(1, "iou")])
    assert groups.missing() == ["chart"]


def test_nothing_informative_is_dropped_even_beyond_what_was_wanted():
    groups = InformativeGroups(["chart"])
    groups.add([telling(1, "chart"), telling(0, "chart")])
    assert len(groups.batch()) == 2 and groups.missing() == []


def test_flat_groups_of_the_missing_type_fill_up_first_drawn_first():
    groups = InformativeGroups(["chart", "iou", "iou"])
    groups.add([flat(5, "iou"), flat(0, "chart"), telling(2, "iou"), flat(1, "iou")])
    assert [one.prompt.prompt_id for one in groups.fill()] == ["r05", "r00"]
    assert [one.prompt.prompt_id for one in groups.batch()] == ["r00", "r02", "r05"]
    metrics = groups.metrics(refills=3)
    assert metrics == {
        "dynamic_sampling/refills": 3,
        "dynamic_sampling/generated_groups": 4,
        "dynamic_sampling/filled_groups": 2,
        "dynamic_sampling/zero_variance_fraction/chart": 1.0,
        "dynamic_sampling/zero_variance_fraction/iou": pytest.approx(2 / 3),
    }
    check_names(metrics)


class Stack:
    """Loader, engines and scorer at once: a row's samples differ in reward if `tells(row)`."""

    def __init__(self, tells, max_refills: int = 4):
        self.tells, self.asked, self.warnings, self.rows = tells, [], [], TYPES
        config = Config(
            algo=AlgoConfig(dynamic_sampling=True, max_refills=max_refills), reward=RewardConfig(max_unscored_fraction=0)
        )
        kinds = sorted(set(TYPES))
        rows = SimpleNamespace(reward_types=kinds, reward_type=[kinds.index(kind) for kind in TYPES])
        order = BatchOrder(TYPES, 4, seed=0)
        self.sampler = Sampler(config, order, rows, self, self, self, self.warnings.append)

    def load(self, rows):
        self.asked.append(list(rows))
        return rows

    load_batch = load

    def found(self):
        return [{"row": 0}]

    def restore(self, found, loaded):
        self.restored = found, {row for batch in loaded for row in batch}

    def prefetch(self, rows):
        pass

    def generate(self, rows, sampling, step):
        return [
            FinishedGroup(telling(row, TYPES[row]).prompt, GroupInfo(str(row), (3, 3), (True, True), step - 1), row)
            for row in rows
        ]

    def submit(self, finished, progress):
        return finished.group

    def collect(self, rows):
        return [(telling if self.tells(row) else flat)(row, TYPES[row]) for row in rows]

    def judged(self, experiences, step):
        self.judged_ids = [one.prompt.prompt_id for one in experiences]
        return experiences


def test_further_prompts_are_drawn_until_every_type_has_its_share_of_telling_groups():
    stack = Stack(tells=lambda row: row % 6 not in (0, 1))
    for step in (1, 2, 3):
        sampled = stack.sampler.sample(step, Clock())
        kinds = [one.prompt.reward_type for one in sampled.batch]
        assert sorted(kinds) == ["chart", "chart", "iou", "iou"]
        assert all(one.rewards[0].total != one.rewards[1].total for one in sampled.batch)
        assert stack.judged_ids == [one.prompt.prompt_id for one in sampled.batch]
    drawn = [row for rows in stack.asked for row in rows]
    assert len(drawn) > 12 and max(drawn.count(row) for row in drawn) == 1 and stack.warnings == []


def test_refills_are_bounded_and_what_is_still_missing_is_said_and_filled():
    stack = Stack(tells=lambda row: TYPES[row] == "iou", max_refills=2)
    sampled = stack.sampler.sample(1, Clock())
    assert [len(rows) for rows in stack.asked] == [4, 2, 2]
    assert sampled.metrics["dynamic_sampling/refills"] == 2
    assert sampled.metrics["dynamic_sampling/filled_groups"] == 2
    assert len(sampled.batch) == 4 and len(sampled.generated) == 8
    assert len(stack.warnings) == 1
    assert "step 1: after 2 refills (algo.max_refills 2) 2 groups" in stack.warnings[0]
    assert "{'chart': 2}" in stack.warnings[0]


def test_a_step_whose_groups_all_tell_something_samples_once():
    stack = Stack(tells=lambda row: True)
    sampled = stack.sampler.sample(1, Clock())
    assert len(stack.asked) == 1 and sampled.batch == sampled.generated
    assert sampled.metrics["dynamic_sampling/refills"] == 0


def test_a_continued_sampler_draws_what_the_other_would_have_drawn(tmp_path):
    one = Stack(tells=lambda row: row % 6 not in (0, 1))
    one.sampler.sample(1, Clock())
    state = {"step": 1} | one.sampler.save(tmp_path)
    one.sampler.sample(2, Clock())
    other = Stack(one.tells)
    other.sampler.restore(state, step=1, folder=tmp_path)
    other.sampler.sample(2, Clock())
    assert other.asked == one.asked[-len(other.asked) :] and len(other.asked[0]) == 4
    bad_rows, prepared = other.restored
    assert bad_rows == [{"row": 0}] and prepared >= {row for rows in one.asked[:2] for row in rows}
