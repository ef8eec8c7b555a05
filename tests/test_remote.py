"""Waiting: named, bounded, watched, and cut short by the first failure; with stand-ins for Ray's store."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from ray.exceptions import ActorDiedError, ObjectLostError, RayTaskError

from mixed_r1_ray import remote
from mixed_r1_ray.errors import UserError

NEVER = 10**9


class Ref:
    """Made, with a value or an error, after so many looks at it."""

    def __init__(self, value=None, looks: int = 0):
        self.value, self.looks = value, looks


class Store:
    """Takes no time, but for what is asked to wait: then a little."""

    def wait(self, refs, num_returns, timeout, fetch_local=True):
        assert refs and 0 <= timeout <= remote.LOOK_S
        made = [ref for ref in refs if ref.looks <= 0][:num_returns]
        if len(made) < num_returns:
            time.sleep(min(timeout, 0.002))
        for ref in refs:
            ref.looks -= 1
        return made, [ref for ref in refs if ref not in made]

    def get(self, refs, timeout):
        for ref in refs:
            if isinstance(ref.value, Exception):
                raise ref.value
        return [ref.value for ref in refs]


@pytest.fixture(autouse=True)
def store(monkeypatch):
    monkeypatch.setattr(remote, "ray", SimpleNamespace(wait=Store().wait, get=Store().get))


def fetch(refs, deadline_s: float = 60.0, **how):
    return remote.fetch(refs, what="learner ranks 0-1 updating at step 7", deadline_s=deadline_s, **how)


def raised(error: Exception) -> RayTaskError:
    return RayTaskError("update", "traceback", error).as_instanceof_cause()


def test_one_value_or_a_list_in_its_order_with_repetitions():
    late, early = Ref("late", looks=3), Ref("early")
    assert fetch(late) == "late"
    late.looks = 3
    assert fetch([late, early, late]) == ["late", "early", "late"]
    assert fetch([]) == []


def test_a_deadline_names_who_was_waited_for():
    with pytest.raises(remote.ActorFailure, match=r"^learner ranks 0-1 updating at step 7: no answer within 0.05 s$"):
        fetch([Ref(), Ref(looks=NEVER)], deadline_s=0.05)


def test_the_first_failure_ends_the_wait_though_another_rank_never_answers():
    with pytest.raises(remote.ActorDied, match="learner ranks 0-1 updating at step 7: ActorDiedError"):
        fetch([Ref(looks=NEVER), Ref(ActorDiedError(), looks=2)])


def test_what_is_lost_is_told_apart_from_who_is_dead():
    lost = ObjectLostError("00" * 28, None, "stack")
    for value in (lost, raised(lost)):
        with pytest.raises(remote.ObjectLost):
            fetch(Ref(value))


def test_a_users_error_comes_as_it_is_and_others_with_their_type():
    with pytest.raises(UserError, match="^reward.custom is wrong$"):
        fetch(Ref(raised(UserError("reward.custom is wrong"))))
    with pytest.raises(remote.ActorFailure, match=r"updating at step 7: ZeroDivisionError: by zero"):
        fetch(Ref(raised(ZeroDivisionError("by zero"))))


@pytest.mark.parametrize("looks", [0, 1, 5])
def test_work_is_done_meanwhile_until_the_answer_is_there(looks):
    worked = []
    assert fetch(Ref("done", looks), meanwhile=lambda: worked.append(1)) == "done"
    assert len(worked) == looks


def test_what_work_done_meanwhile_raises_comes_through():
    def work():
        raise ValueError("a group of the wrong version")

    with pytest.raises(ValueError, match="wrong version"):
        fetch(Ref(looks=3), meanwhile=work)


def test_the_first_made_is_waited_for_and_all_made_are_taken():
    refs = [Ref(looks=NEVER), Ref(looks=3), Ref(looks=NEVER)]
    assert remote.first_made(refs, what="", seconds=60.0) == [refs[1]]
    assert remote.first_made([Ref(looks=NEVER)], what="", seconds=0.05) == []
    made = [Ref(), Ref(looks=NEVER), Ref()]
    assert remote.first_made(made, what="", seconds=0.0) == [made[0], made[2]]
    assert remote.first_made([], what="", seconds=0.0) == []


def test_watchers_see_name_time_waited_and_deadline_and_may_end_the_wait(monkeypatch):
    monkeypatch.setattr(remote, "LOOK_S", 0.02)
    seen = []

    def look(what, waited_s, deadline_s):
        seen.append((what, deadline_s))
        if waited_s > 0.1:
            raise remote.NodeLost("node b is lost")

    with remote.watched(look), pytest.raises(remote.NodeLost, match="node b"):
        fetch(Ref(looks=NEVER))
    assert len(seen) >= 2 and set(seen) == {("learner ranks 0-1 updating at step 7", 60.0)}
    with pytest.raises(remote.ActorFailure):
        fetch(Ref(looks=NEVER), deadline_s=0.1)
    assert len(seen) < 10
