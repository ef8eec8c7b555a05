"""Streams of groups from several engines, with stand-ins for Ray's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.remote import ActorFailure
from mixed_r1_ray.rollout import pool as module
from mixed_r1_ray.rollout.pool import GroupStream
from mixed_r1_ray.types import GroupInfo


class Stream:
    """An engine's stream: an info and a group in turn, of which `there` have come so far."""

    def __init__(self, prompt_ids, there: int | None = None):
        self.prompt_ids = list(prompt_ids)
        self.there = len(self.prompt_ids) + 1 if there is None else there
        self.half = False

    @property
    def ready(self) -> bool:
        return self.there > 0

    def __next__(self):
        if not self.half:
            if not self.prompt_ids:
                raise StopIteration
            self.half = True
            return GroupInfo(self.prompt_ids[0], (1,), (True,), 0)
        self.half, self.there = False, self.there - 1
        return f"group {self.prompt_ids.pop(0)}"


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    def wait(streams, num_returns, timeout):
        return [stream for stream in streams if stream.ready][:1], []

    monkeypatch.setattr(module, "ray", SimpleNamespace(wait=wait))
    monkeypatch.setattr(module, "fetch", lambda ref, what, deadline_s: ref)


def stream_of(*streams: Stream, loads=()) -> GroupStream:
    prompts = [SimpleNamespace(prompt_id=name) for name in "abcd"]
    return GroupStream({stream: f"engine {number}" for number, stream in enumerate(streams)}, prompts, loads, 5.0)


def test_every_group_comes_once_with_its_prompt_whichever_engine_made_it():
    groups = list(stream_of(Stream("ac"), Stream("bd")))
    assert sorted(one.prompt.prompt_id for one in groups) == list("abcd")
    assert all(one.group == f"group {one.info.prompt_id}" for one in groups)


def test_ready_takes_what_is_there_and_iterating_the_rest():
    engine = Stream("abc", there=2)
    stream = stream_of(engine)
    assert [one.info.prompt_id for one in stream.ready()] == ["a", "b"]
    assert stream.ready() == []
    engine.there = 2
    assert [one.info.prompt_id for one in stream] == ["c"]
    assert stream.ready() == list(stream) == []


def test_waiting_in_vain_names_the_engines():
    with pytest.raises(ActorFailure, match=r"no group finished within 5 s: engine 0; engine 1"):
        list(stream_of(Stream("a", there=0), Stream("b", there=0)))


def test_a_weight_load_that_failed_is_raised_before_any_group_made_after_it():
    def finish():
        raise UserError("weight version 3 left 1 engine parameters unfilled")

    with pytest.raises(UserError, match="weight version 3"):
        stream_of(Stream("a"), loads=[SimpleNamespace(finish=finish)]).ready()
