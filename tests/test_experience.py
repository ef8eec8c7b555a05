"""From finished groups to train batches, with stand-ins for the actors."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import get_args, get_type_hints

import numpy as np
import pytest

from mixed_r1_ray import experience as module
from mixed_r1_ray.algo.advantages import group_advantages, leave_one_out_advantages, whitened_advantages
from mixed_r1_ray.config import AlgoConfig, Config, RewardConfig, RolloutConfig
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.experience import (
    Experience,
    Scorer,
    check_unscored,
    make_batch,
    overlong_metrics,
    rollout_rows,
)
from mixed_r1_ray.policy import reference_pool
from mixed_r1_ray.policy.reference_pool import Judged, ReferencePool
from mixed_r1_ray.rollout.pool import FinishedGroup
from mixed_r1_ray.runtime.metric_names import check_names
from mixed_r1_ray.turns import Turns
from mixed_r1_ray.types import BoxFrame, Group, GroupInfo, Prompt, RewardBreakdown, Rollout

NO_REFERENCE = ReferencePool([], 1.0)


def prompt(prompt_id: str, num_tokens: int = 10) -> Prompt:
    return Prompt(
        prompt_id=prompt_id,
        source="shapes",
        reward_type="matching",
        question="Is it red?",
        answer="yes",
        choices=None,
        image_sizes=(),
        box_frame=None,
        text="…",
        num_tokens=num_tokens,
        inputs=f"inputs of {prompt_id}",
    )


def finished(prompt_id: str, lengths: tuple[int, ...] = (3, 5)) -> FinishedGroup:
    info = GroupInfo(prompt_id, lengths, (True,) * len(lengths), oldest_version=4)
    return FinishedGroup(prompt(prompt_id), info, f"group of {prompt_id}")


def reward(total: float | None, detail: str = "") -> RewardBreakdown:
    return RewardBreakdown("matching", total, total, None if total is None else 0.0, detail)


def experience(prompt_id: str, totals: list[float | None], lengths: tuple[int, ...]) -> Experience:
    group = finished(prompt_id, lengths)
    rewards = tuple(reward(total, f"{prompt_id}: worker died") for total in totals)
    judged = Judged(f"reference of {prompt_id} done", f"reference of {prompt_id}")
    return Experience(group.prompt, group.info, group.group, rewards, judged)


def test_batch_carries_advantages_lengths_and_references_of_each_group():
    batch = make_batch(
        7,
        [experience("a", [1.0, 0.0, 0.0, 1.0], (3, 5, 2, 4)), experience("b", [1.0, None, 0.5], (6, 9, 1))],
        Config(algo=AlgoConfig(scale_rewards="group")),
    )
    assert batch.step == 7
    first, second = batch.groups
    assert first.advantages == pytest.approx((0.866024, -0.866024, -0.866024, 0.866024), abs=1e-6)
    assert second.advantages[1] is None
    assert second.advantages[::2] == pytest.approx((0.707105, -0.707105), abs=1e-6)
    assert second.response_lengths == (6, 9, 1) and second.num_prompt_tokens == 10
    assert (second.inputs, second.group, second.reference_logprobs) == (
        "inputs of b",
        "group of b",
        "reference of b",
    )


def test_batch_counts_only_the_samples_that_enter_the_loss():
    batch = make_batch(
        1, [experience("a", [1.0, None, 0.0], (3, 50, 2)), experience("b", [None], (70,))], Config()
    )
    assert (batch.num_samples, batch.num_tokens) == (2, 5)


def test_batch_follows_the_configured_scale_and_floor():
    def advantages(**algo):
        config = Config(algo=AlgoConfig(**algo))
        return make_batch(1, [experience("a", [0.8, 0.9], (1, 1))], config).groups[0].advantages

    assert advantages(scale_rewards="none") == pytest.approx((-0.05, 0.05))
    assert advantages(scale_rewards="group", std_floor=0.5) == pytest.approx((-0.1, 0.1), abs=1e-6)


def test_batch_can_normalise_task_and_format_apart():
    told = [("right", 1.0, 1.0), ("wrong", 0.0, 1.0), ("no form", 0.0, 0.0)]
    rewards = tuple(RewardBreakdown("matching", 9.9, task, form, name) for name, task, form in told)
    group = finished("a", (1, 1, 1))
    config = Config(
        algo=AlgoConfig(multi_objective_aggregation="normalize_then_sum"), reward=RewardConfig(format_weight=0.25)
    )
    batch = make_batch(1, [Experience(group.prompt, group.info, group.group, rewards, None)], config)
    task, form = np.array([1, 0, 0]), np.array([1, 1, 0])
    sums = (task - task.mean()) / task.std(ddof=1) + 0.25 * (form - form.mean()) / form.std(ddof=1)
    assert batch.groups[0].advantages == pytest.approx(sums / sums.std(ddof=1), abs=1e-5)


def test_unscored_samples_up_to_the_allowed_fraction_pass():
    check_unscored(3, [experience("a", [1.0, None, 0.0, 1.0], (1,) * 4)], allowed=0.25)
    check_unscored(3, [], allowed=0.0)


def test_more_unscored_samples_stop_with_step_numbers_key_and_a_cause():
    groups = [experience("a", [1.0, 0.0], (1, 1)), experience("b", [None, 1.0], (1, 1))]
    with pytest.raises(
        UserError,
        match=r"step 3: 1 of 4 .*reward\.max_unscored_fraction.* 10%.*shapes 1.*'b', sample 0.*worker died",
    ):
        check_unscored(3, groups, allowed=0.1)


class Rewards:
    """Stands for the reward pool: remembers what was submitted."""

    def __init__(self):
        self.submitted = []

    def submit(self, prompt, group, num_samples, progress):
        self.submitted.append((prompt.prompt_id, group, num_samples, progress))
        return prompt.prompt_id

    def collect(self, pending):
        return (reward(1.0, pending),)


def references(count: int) -> tuple[list, list]:
    """Stand-ins for reference actors, and the list of (actor, inputs, group) that they are asked."""
    asked = []

    def actor(number):
        def remote(inputs, group):
            asked.append((number, inputs, group))
            return f"done {len(asked)}", f"logprobs {len(asked)}"

        return SimpleNamespace(logprobs=SimpleNamespace(remote=remote))

    return [actor(number) for number in range(count)], asked


def test_each_group_is_scored_before_the_next_one_is_waited_for():
    rewards = Rewards()

    def stream():
        for number, name in enumerate("cab"):
            assert len(rewards.submitted) == number
            yield finished(name)

    pending = Scorer(rewards, NO_REFERENCE, print).submit_all(stream(), progress=0.3)
    assert rewards.submitted == [(name, f"group of {name}", 2, 0.3) for name in "cab"]
    assert [part.reference for part in pending] == [None] * 3


def test_experiences_come_in_the_order_of_prompt_ids_whichever_was_finished_first():
    scorer = Scorer(Rewards(), NO_REFERENCE, print)
    collected = scorer.collect(scorer.submit_all(map(finished, "cab")))
    assert [part.prompt.prompt_id for part in collected] == ["a", "b", "c"]
    assert [part.rewards[0].detail for part in collected] == ["a", "b", "c"]
    assert [part.group for part in collected] == ["group of a", "group of b", "group of c"]


def test_samples_that_could_not_be_scored_are_told_when_they_are_collected():
    told = []
    rewards = Rewards()
    rewards.collect = lambda pending: (reward(1.0), reward(None, "ValueError: bad"))
    scorer = Scorer(rewards, NO_REFERENCE, told.append)
    scorer.collect(scorer.submit_all(map(finished, "ba")))
    assert len(told) == 1 and "2 samples" in told[0]
    assert "prompt 'a', sample 1 (source shapes): ValueError: bad" in told[0]


def test_references_take_turns_and_each_group_keeps_its_own_answer():
    actors, asked = references(2)
    scorer = Scorer(Rewards(), ReferencePool(actors, 1.0), print)
    collected = scorer.collect(scorer.submit_all(map(finished, "cab")))
    assert {number for number, _, _ in asked} == {0, 1}
    assert [(inputs, group) for _, inputs, group in asked] == [
        (f"inputs of {n}", f"group of {n}") for n in "cab"
    ]
    assert [part.reference.logprobs for part in collected] == ["logprobs 2", "logprobs 3", "logprobs 1"]


def test_evaluation_asks_no_reference():
    actors, asked = references(1)
    Scorer(Rewards(), ReferencePool(actors, 1.0), print).submit_all([finished("a")], with_reference=False)
    assert asked == []


@pytest.fixture
def waited(monkeypatch) -> dict:
    """What was waited for, and how."""
    waited: dict = {}
    monkeypatch.setattr(reference_pool, "fetch", lambda refs, **how: waited.update(refs=refs, **how))
    return waited


def test_reference_answers_are_awaited_by_name_and_deadline(waited):
    scorer = Scorer(Rewards(), ReferencePool(references(1)[0], 12.0), print)
    groups = [experience("a", [1.0], (1,)), experience("b", [1.0], (1,))]
    assert scorer.judged(groups, step=5) == groups
    assert waited["refs"] == ["reference of a done", "reference of b done"]
    assert "step 5" in waited["what"] and waited["deadline_s"] == 12.0


def test_without_a_reference_nothing_is_awaited(waited):
    groups = [experience("a", [1.0], (1,))]
    assert Scorer(Rewards(), NO_REFERENCE, print).judged(groups, step=5) == groups and waited == {}


def test_a_reference_on_shared_gpus_is_asked_when_all_groups_are_there_and_has_its_turn(waited):
    turns, taken = Turns({"reference": list}, 1.0), []
    turns.take = taken.append
    actors, asked = references(1)
    scorer = Scorer(Rewards(), ReferencePool(actors, 1.0, turns), print)
    collected = scorer.collect(scorer.submit_all(map(finished, "ab")))
    assert asked == [] and taken == [] and [one.reference for one in collected] == [None, None]
    judged = scorer.judged(collected, step=5)
    assert [one.reference.logprobs for one in judged] == ["logprobs 1", "logprobs 2"]
    assert set(taken) == {"reference"} and waited["refs"] == ["done 1", "done 2"]


def test_metrics_get_what_was_scored_and_how_long_it_was():
    scored = experience("a", [1.0, None], (3, 5)).scored()
    assert (scored.reward_type, scored.source) == ("matching", "shapes")
    assert (scored.lengths, scored.finished) == ((3, 5), (True, True))
    assert [part.total for part in scored.rewards] == [1.0, None]


def test_rollout_log_keeps_what_scoring_took(monkeypatch):
    one = Rollout(0, np.zeros(1, np.int32), np.zeros(1, np.float32), np.ones(1, np.int32), "text", True)
    monkeypatch.setattr(module, "fetch", lambda refs, **_: [Group("a", np.arange(10), (one,))])
    spoken = replace(
        prompt("a"), choices=("red", "blue"), image_sizes=((640, 480), (9, 9)), box_frame=BoxFrame(1000, 1000)
    )
    experiences = [replace(experience("a", [1.0], (1,)), prompt=spoken)]
    (row,) = rollout_rows(experiences, make_batch(1, experiences, Config()))
    assert (row.choices, row.image_size, row.box_frame) == (("red", "blue"), (640, 480), (1000, 1000))


def test_rollout_log_has_a_row_a_response_beside_its_reward_and_advantage(monkeypatch):
    def rollout(index, versions):
        zeros = np.zeros(len(versions), np.float32)
        return Rollout(
            index, zeros.astype(np.int32), zeros, np.array(versions, np.int32), f"text {index}", index == 0
        )

    group = Group("a", np.arange(10), (rollout(0, [4, 4, 5]), rollout(1, [5] * 5)))
    monkeypatch.setattr(module, "fetch", lambda refs, **_: [{"group of a": group}[ref] for ref in refs])
    experiences = [experience("a", [1.0, None], (3, 5))]
    first, second = rollout_rows(experiences, make_batch(2, experiences, Config()))
    assert (first.response, first.reward_total, first.advantage, first.finished) == ("text 0", 1.0, 0.0, True)
    assert (first.weight_version_oldest, first.weight_version_newest) == (4, 5)
    assert (second.sample_index, second.reward_total, second.advantage, second.finished) == (
        1,
        None,
        None,
        False,
    )
    assert (first.choices, first.image_size, first.box_frame) == (None, None, None)
    assert (second.response_tokens, second.prompt_tokens, second.reward_detail) == (5, 10, "a: worker died")


def advantages_of(groups: list[Experience], max_new_tokens: int = 100, **algo) -> list[tuple]:
    config = Config(algo=AlgoConfig(**algo), rollout=RolloutConfig(max_new_tokens=max_new_tokens))
    return [group.advantages for group in make_batch(1, groups, config).groups]


def test_each_estimator_reaches_the_batch():
    groups = [experience("a", [1.0, 0.0, 0.5], (2, 3, 4)), experience("b", [0.2, None, 0.8], (5, 6, 7))]
    totals = [(1.0, 0.0, 0.5), (0.2, None, 0.8)]
    assert advantages_of(groups, advantage_estimator="dr_grpo") == group_advantages(totals, "none")
    assert advantages_of(groups, advantage_estimator="rloo") == leave_one_out_advantages(totals)
    whitened = whitened_advantages(totals, [(2, 3, 4), (5, 6, 7)], std_floor=0.9)
    name = "reinforce_plus_plus_baseline"
    assert advantages_of(groups, advantage_estimator=name, std_floor=0.9) == whitened


def test_every_configurable_estimator_gives_another_answer():
    groups = [experience("a", [1.0, 0.0, 0.5, 0.6], (2, 3, 4, 5))]
    estimators = get_args(get_type_hints(AlgoConfig)["advantage_estimator"])
    answers = {advantages_of(groups, advantage_estimator=name)[0] for name in estimators}
    assert len(answers) == len(estimators) == 4


def test_overlong_penalty_lowers_the_total_before_it_is_compared():
    groups = [experience("a", [1.0, 1.0, None, 0.0], (80, 90, 100, 100))]
    (given,) = advantages_of(groups, overlong_buffer=20, overlong_penalty_factor=0.5, scale_rewards="none")
    mean = (1.0 + 0.75 - 0.5) / 3
    assert given[2] is None
    assert (*given[:2], given[3]) == pytest.approx((1.0 - mean, 0.75 - mean, -0.5 - mean))


def test_overlong_penalty_is_measured_against_the_longest_response_that_is_sampled():
    groups = [experience("a", [1.0, 1.0], (10, 50))]
    assert advantages_of(groups, max_new_tokens=100, overlong_buffer=20) == [(0.0, 0.0)]
    assert advantages_of(groups, max_new_tokens=50, overlong_buffer=20)[0][1] < -0.7


def test_overlong_penalty_is_a_kind_of_its_own_to_gdpo():
    groups = [experience("a", [1.0, 1.0, 0.0, 0.0], (1, 100, 1, 100))]
    (given,) = advantages_of(groups, multi_objective_aggregation="normalize_then_sum", overlong_buffer=20)
    assert given[0] > given[1] and given[0] + given[3] == pytest.approx(0.0) == given[1] + given[2]


def test_overlong_metric_is_the_mean_penalty_and_absent_without_one():
    groups = [experience("a", [1.0, 1.0], (80, 90)), experience("b", [1.0, None], (81, 100))]
    config = Config(
        algo=AlgoConfig(overlong_buffer=20, overlong_penalty_factor=2.0),
        rollout=RolloutConfig(max_new_tokens=100),
    )
    metrics = overlong_metrics(groups, config)
    assert metrics == {"reward/overlong_penalty": pytest.approx(2 * -(0.0 + 0.5 + 0.05 + 1.0) / 4)}
    check_names(metrics)
    assert overlong_metrics(groups, Config()) == {}


def cut(prompt_id: str, totals: list[float], finished: tuple[bool, ...]) -> Experience:
    whole = experience(prompt_id, totals, (5,) * len(totals))
    return replace(whole, info=replace(whole.info, finished=finished))


def test_truncated_responses_leave_the_loss_and_stay_in_their_groups_mean():
    groups = [cut("a", [1.0, 0.0, 0.0, 1.0], (True, True, False, True))]
    batch = make_batch(1, groups, Config(algo=AlgoConfig(mask_truncated=True)))
    assert batch.groups[0].advantages == (
        pytest.approx(0.866024, abs=1e-6),
        pytest.approx(-0.866024, abs=1e-6),
        None,
        pytest.approx(0.866024, abs=1e-6),
    )
    assert (batch.num_samples, batch.num_tokens) == (3, 15)


def test_truncated_responses_are_trained_on_unless_masked():
    batch = make_batch(1, [cut("a", [1.0, 0.0], (True, False))], Config())
    assert batch.num_samples == 2 and None not in batch.groups[0].advantages


def test_batch_of_nothing_but_truncated_responses_says_so_by_number_and_key():
    config = Config(algo=AlgoConfig(mask_truncated=True))
    with pytest.raises(UserError, match=r"step 4: .*leaves out 2 of 2 .*max_new_tokens 64: raise that"):
        make_batch(4, [cut("a", [1.0, 0.0], (False, False))], config)
