"""The watchdog: lost nodes end a wait, a long one is told once, with who is where; with stand-ins for Ray."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mixed_r1_ray import watchdog as module
from mixed_r1_ray.config import Config
from mixed_r1_ray.remote import NodeLost
from mixed_r1_ray.watchdog import Watchdog

WHAT = "rollout[0] generating at step 2"


@pytest.fixture
def alive(monkeypatch) -> set[str]:
    """Ids of the nodes that Ray takes for alive; may be changed."""
    alive = {"id-a", "id-b", "id-c"}
    nodes = lambda: [{"NodeID": name, "Alive": name in alive} for name in ("id-a", "id-b", "id-c")]  # noqa: E731
    monkeypatch.setattr(module, "ray", SimpleNamespace(nodes=nodes, util=SimpleNamespace(get_node_ip_address=lambda: "10.0.0.1")))
    return alive


@pytest.fixture
def processes(monkeypatch):
    """What Ray knows of processes, and what they answer."""
    entry = {"State": "ALIVE", "Pid": 12, "Address": {"IPAddress": "10.0.0.2"}}
    monkeypatch.setattr(module, "_processes", lambda: {"rollout[0]": entry, "learner[0]": entry | {"Pid": 13}})
    answers = {"rollout[0]": None, "learner[0]": "in update for 9 s\nthread 1\n  File x\n", "data[0]": "idle\n"}
    monkeypatch.setattr(module, "ask", lambda folder, names: {name: answers[name] for name in names})


def watchdog(tmp_path, told: list[str], stall_s: float = 100.0) -> Watchdog:
    """Of actors that are on the first two of three nodes."""
    nodes = tuple(SimpleNamespace(name=f"node {letter}", ray_id=f"id-{letter}") for letter in "abc")
    names = lambda: ["rollout[0]", "learner[0]", "data[0]"]  # noqa: E731
    actors = SimpleNamespace(placement=SimpleNamespace(nodes=nodes, seats=(0, 1, 1)), names=names)
    config = Config()
    config.run.dir, config.run.name, config.cluster.stall_s = str(tmp_path), "run", stall_s
    return Watchdog(actors, config, told.append)


def test_a_lost_node_of_the_run_is_named_and_others_do_not_matter(tmp_path, alive, monkeypatch):
    monkeypatch.setattr(module, "NODES_EVERY_S", 0.0)
    dog = watchdog(tmp_path, [])
    dog.look(WHAT, 1.0, 600.0)
    alive.discard("id-c")
    dog.look(WHAT, 2.0, 600.0)
    alive.discard("id-b")
    with pytest.raises(NodeLost, match="^node node b is lost, with all actors on it$"):
        dog.look(WHAT, 3.0, 600.0)


def test_a_long_wait_is_told_once_and_the_next_one_again(tmp_path, alive, processes):
    told = []
    dog = watchdog(tmp_path, told)
    for waited_s in (1.0, 50.0, 99.0):
        dog.look(WHAT, waited_s, 600.0)
    assert told == []
    for waited_s in (101.0, 150.0, 500.0):
        dog.look(WHAT, waited_s, 600.0)
    assert len(told) == 1
    dog.look(WHAT, 1.0, 600.0)
    dog.look(WHAT, 101.0, 600.0)
    assert len(told) == 2


def test_half_of_a_short_deadline_is_long_enough(tmp_path, alive, processes):
    told = []
    dog = watchdog(tmp_path, told)
    dog.look(WHAT, 29.0, 60.0)
    assert told == []
    dog.look(WHAT, 30.0, 60.0)
    assert len(told) == 1


def test_a_stall_names_the_wait_and_each_actors_process_and_call_and_keeps_the_stacks(tmp_path, alive, processes):
    told = []
    watchdog(tmp_path, told).look(WHAT, 101.0, 600.0)
    head, engine, learner, data, where = told[0].splitlines()
    assert head == f"nothing for 101 s (deadline 600 s) of: {WHAT}"
    assert engine == "  rollout[0]: alive, process 12 on 10.0.0.2; no answer: stopped, in native code, or out of reach"
    assert learner == "  learner[0]: alive, process 13 on 10.0.0.2; in update for 9 s"
    assert data == "  data[0]: unknown to Ray; idle"
    (file,) = (tmp_path / "run" / "stalls").iterdir()
    assert where == f"  stacks: {file}"
    text = file.read_text()
    assert "thread 1\n  File x" in text and "== driver" in text and "test_watchdog.py" in text
