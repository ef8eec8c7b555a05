"""GPUs that several roles share: never two awake, in whatever order they are wanted."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixed_r1_ray import turns as module
from mixed_r1_ray.gpu_memory import MemoryReading, forget_peak, peak_bytes
from mixed_r1_ray.remote import ActorFailure
from mixed_r1_ray.runtime.metric_names import check_names
from mixed_r1_ray.scale.hardware import GIB
from mixed_r1_ray.turns import Turns, no_turns

ROLES = ("rollout", "learner", "reference")


class Gpu:
    """What lies on it: roles whose actors are awake. The engines' are from the start."""

    def __init__(self):
        self.awake, self.log = {("rollout", 0), ("rollout", 1)}, []
        self.broken: str | None = None  # a role that does not wake

    def actor(self, role: str, number: int):
        def sleep():
            self.awake.remove((role, number))
            self.log.append(("sleep", role))

        def wake():
            assert all(other == role for other, _ in self.awake), "two roles at once"
            if role == self.broken:
                raise ActorFailure("out of memory")
            self.awake.add((role, number))
            self.log.append(("wake", role))

        return SimpleNamespace(sleep=SimpleNamespace(remote=sleep), wake=SimpleNamespace(remote=wake))

    def turns(self, roles=ROLES) -> Turns:
        return Turns({role: lambda role=role: [self.actor(role, n) for n in range(2)] for role in roles}, 9.0)


@pytest.fixture(autouse=True)
def done_at_once(monkeypatch):
    monkeypatch.setattr(module, "fetch", lambda refs, what, deadline_s: refs)


@given(st.lists(st.sampled_from(ROLES), max_size=12))
def test_whoever_takes_a_turn_is_awake_alone(wanted):
    gpu = Gpu()
    turns = gpu.turns()
    for role in wanted:
        turns.take(role)
        assert gpu.awake == {(role, 0), (role, 1)}


def test_a_step_wakes_each_role_once_and_puts_it_to_sleep_before_the_next():
    gpu = Gpu()
    turns = gpu.turns()
    for role in ("rollout", "rollout", "reference", "reference", "learner", "learner", "rollout"):  # generate … load
        turns.take(role)
    order = [call for number, call in enumerate(gpu.log) if number % 2 == 0]  # two actors each
    assert order == [
        ("sleep", "rollout"), ("wake", "reference"), ("sleep", "reference"), ("wake", "learner"),
        ("sleep", "learner"), ("wake", "rollout"),
    ]  # fmt: skip


def test_roles_with_gpus_of_their_own_or_none_just_work():
    gpu = Gpu()
    turns = gpu.turns(roles=("rollout", "learner"))
    turns.take("reference")
    assert gpu.log == [] and not turns.shares("reference") and turns.shares("learner")
    no_turns().take("learner")


def test_after_a_failure_to_wake_nobody_is_taken_to_be_awake():
    gpu = Gpu()
    turns = gpu.turns()
    gpu.broken = "learner"
    with pytest.raises(ActorFailure, match="out of memory"):
        turns.take("learner")
    turns.take("rollout")
    assert gpu.awake == {("rollout", 0), ("rollout", 1)}


def test_the_wait_is_named(monkeypatch):
    waited = []
    monkeypatch.setattr(module, "fetch", lambda refs, what, deadline_s: waited.append((what, deadline_s)) or refs)
    Gpu().turns().take("learner")
    assert waited == [("rollout giving its GPUs away", 9.0), ("learner taking its GPUs", 9.0)]


def test_metrics_are_the_seconds_and_the_highest_peak_of_each_turn_since_they_were_last_asked_for(monkeypatch):
    peaks = {"rollout": iter([[3 * GIB, 5 * GIB], [2 * GIB, GIB]]), "learner": iter([[None, None]])}
    clock = iter([0.0, 2.0, 10.0, 13.0, 20.0, 24.0])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))

    def fetch(refs, what, deadline_s):
        role, giving = what.split()[:2]
        return next(peaks[role]) if giving == "giving" else [None, None]

    monkeypatch.setattr(module, "fetch", fetch)
    turns = Gpu().turns(roles=("rollout", "learner"))
    assert turns.metrics() == {}
    for role in ("learner", "rollout", "learner"):
        turns.take(role)
    metrics = turns.metrics()
    assert metrics == {"time/turn_learner_s": 6.0, "time/turn_rollout_s": 3.0, "memory/peak_rollout_gib": 5.0}
    check_names(metrics)
    assert turns.metrics() == {}


def test_the_peak_is_of_the_whole_gpu_and_counts_what_was_given_back_since():
    # others hold 10 of 80; this process holds 20 now, and held 32
    assert MemoryReading(free=50, total=80, reserved=20, most_reserved=32).peak == 42


def test_a_process_without_a_gpu_has_no_peak():
    forget_peak()
    assert peak_bytes() is None
