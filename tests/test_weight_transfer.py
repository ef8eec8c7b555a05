"""The ways of a version, with stand-ins for learners and engines; tests/actors/test_sync_ways.py has the real ones."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mixed_r1_ray import weight_transfer as module
from mixed_r1_ray.config import Config
from mixed_r1_ray.weight_transfer import Broadcasting, Lending


class Recorder:
    """Notes every call, of an actor's methods as well; `answers` by name."""

    def __init__(self, log: list, name: str, **answers):
        self._log, self._name, self._answers = log, name, answers

    def __getattr__(self, method: str):
        def call(*arguments, **named):
            self._log.append((self._name, method))
            answer = self._answers.get(method)
            return answer() if callable(answer) else answer

        call.remote = call
        return call


class Engines:
    """A pool of as many engines as `names` has letters."""

    def __init__(self, log: list, names: str):
        self.log, self.actors = log, {number: Recorder(log, name) for number, name in enumerate(names)}

    def running(self) -> dict:
        return dict(self.actors)

    def take_turn(self) -> None:
        self.log.append(("engines", "take_turn"))

    def take_over(self, version, asked, again) -> None:
        self.log.append(("engines", f"take_over {version} {sorted(asked)}"))


@pytest.fixture(autouse=True)
def done_at_once(monkeypatch):
    monkeypatch.setattr(module, "fetch", lambda refs, what, deadline_s: refs)


def learners(log: list) -> Recorder:
    sender = Recorder(log, "sender", home=("node", "127.0.0.1:4000"))
    made = Recorder(log, "learners", lend_weights=[("bucket 0",), ("bucket 1",)], begin_broadcast=[])
    made.workers = [sender]
    return made


def test_a_group_meets_once_and_anew_when_an_engine_has_been_replaced():
    log: list = []
    engines = Engines(log, "ab")
    way = Broadcasting(learners(log), engines, Config())
    joins = lambda: [name for name, method in log if method == "join_broadcast"]  # noqa: E731
    way.hand_over(1)
    way.hand_over(2)
    assert joins() == ["sender", "a", "b"]
    engines.actors[1] = Recorder(log, "c")
    way.hand_over(3)
    assert joins() == ["sender", "a", "b", "sender", "a", "c"]


def test_ranks_of_a_group_leave_room_for_all_workers_of_each_engine():
    log: list = []
    config = Config()
    config.rollout.gpus_per_worker = 4
    engines, met = Engines(log, ""), []
    for number in range(2):
        join = SimpleNamespace(remote=lambda meeting, first, number=number: met.append((number, meeting.size, first)))
        engines.actors[number] = SimpleNamespace(join_broadcast=join, receive_weights=Recorder(log, "x").receive_weights)
    Broadcasting(learners(log), engines, config).hand_over(1)
    assert met == [(0, 9, 1), (1, 9, 5)]  # rank 0 sends


def test_the_sender_begins_before_engines_are_asked_to_receive():
    log: list = []
    Broadcasting(learners(log), Engines(log, "a"), Config()).hand_over(5)
    begun = [entry for entry in log if entry[1] in ("begin_broadcast", "receive_weights", "take_over 5 [0]")]
    assert begun == [("learners", "begin_broadcast"), ("a", "receive_weights"), ("engines", "take_over 5 [0]")]


def test_what_is_lent_is_taken_back_after_the_engines_have_read_it_on_their_turn():
    log: list = []
    Lending(learners(log), Engines(log, "ab")).hand_over(5)
    assert log[1:] == [
        ("learners", "lend_weights"),
        ("engines", "take_turn"),
        ("a", "borrow_weights"),
        ("b", "borrow_weights"),
        ("engines", "take_over 5 [0, 1]"),
        ("learners", "take_back_weights"),
    ]
