"""Actors say where they are when asked; with threads of this process in the place of theirs."""

from __future__ import annotations

import inspect
import threading
from types import SimpleNamespace

import pytest

from mixed_r1_ray import whereabouts as module
from mixed_r1_ray.config import Config


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "POLL_S", 0.02)
    monkeypatch.setattr(module, "PATIENCE_S", 1.0)
    monkeypatch.setattr(module, "_own", None)


@pytest.fixture
def named(monkeypatch):
    """Ray, in an actor that it calls rollout[0]."""
    context = SimpleNamespace(get_actor_name=lambda: "rollout[0]")
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.get_runtime_context", lambda: context)


def config(tmp_path) -> Config:
    config = Config()
    config.run.dir, config.run.name = str(tmp_path), "run"
    return config


@module.observed
class Worker:
    def __init__(self, config: Config, entered: threading.Event, leave: threading.Event):
        self.entered, self.leave = entered, leave

    def plain(self, value: int = 3) -> int:
        """Gives it back."""
        return value

    def hang(self) -> None:
        self.entered.set()
        assert self.leave.wait(20)

    def stream(self):
        yield 1
        self.hang()
        yield 2


def test_methods_are_what_they_were(tmp_path):
    worker = Worker(config(tmp_path), None, None)
    assert worker.plain() == 3 and worker.plain(value=4) == 4
    assert Worker.plain.__doc__ == "Gives it back." and list(inspect.signature(Worker.plain).parameters) == ["self", "value"]
    assert inspect.isgeneratorfunction(Worker.stream) and not inspect.isgeneratorfunction(Worker.hang)


@pytest.mark.parametrize("how", ["hang", "stream"])
def test_a_busy_actor_names_its_call_and_shows_its_stack_and_an_idle_one_says_so(tmp_path, named, how):
    entered, leave, folder = threading.Event(), threading.Event(), module.folder_of(config(tmp_path))
    worker = Worker(config(tmp_path), entered, leave)
    assert module.ask(folder, ["rollout[0]"]) == {"rollout[0]": "idle\n"}
    call = threading.Thread(target=lambda: list(getattr(worker, how)() or ()))
    call.start()
    assert entered.wait(20)
    said = module.ask(folder, ["rollout[0]"])["rollout[0]"]
    leave.set()
    call.join()
    assert said.startswith("in hang for 0 s\n") and "leave.wait(20)" in said
    assert module.ask(folder, ["rollout[0]"]) == {"rollout[0]": "idle\n"}
    assert list(folder.iterdir()) == []


def test_who_does_not_answer_is_none_after_the_patience(tmp_path, named):
    folder = module.folder_of(config(tmp_path))
    Worker(config(tmp_path), None, None)
    assert module.ask(folder, ["rollout[0]", "learner[3]"]) == {"rollout[0]": "idle\n", "learner[3]": None}


def test_what_is_no_named_actor_starts_no_thread(tmp_path):
    before = threading.active_count()
    Worker(config(tmp_path), None, None)
    assert threading.active_count() == before and module._own is None
