"""When checkpoints are written, waited for and kept; the learners here only note what they are asked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from written_checkpoints import write_checkpoint

from mixed_r1_ray.checkpointing import Checkpointer
from mixed_r1_ray.config import Config
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.remote import ActorDied
from mixed_r1_ray.runtime.checkpoints import Unusable
from mixed_r1_ray.runtime.metrics import MetricsLog
from mixed_r1_ray.runtime.run_dir import RunFiles


@dataclass
class Learners:
    """Notes calls; `fails` is raised by the next wait."""

    calls: list = field(default_factory=list)
    fails: Exception | dict[str, Exception] | None = None  # a dict: by the folder that is loaded
    restarted: bool = False

    def save(self, request) -> None:
        self.calls.append(("save", request))

    def load(self, folder: Path) -> None:
        self.calls.append(("load", folder.name))
        if isinstance(self.fails, dict) and folder.name in self.fails:
            raise self.fails[folder.name]

    def await_save(self, timeout_s: float | None = None) -> None:
        self.calls.append(("wait", None))
        if self.fails is not None:
            raise self.fails
        if not self.restarted:
            folder = Path([request for _, request in self.calls if request][-1].folder)
            folder.rename(folder.with_name(folder.name.removeprefix(".").removesuffix(".partial")))


class Sampler:
    """Its state is one number and a file."""

    def save(self, folder) -> dict:
        (folder / "ahead.parquet").write_bytes(b"groups")
        return {"cursor": 7}

    def restore(self, state: dict, step: int, folder: Path) -> None:
        self.restored = step, folder.name


@dataclass
class Journal:
    warnings: list = field(default_factory=list)
    stops: list = field(default_factory=list)

    def say(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def continue_from(self, step: int) -> None:
        self.continued = step

    def checkpoint(self, seconds: float) -> None:
        self.stops.append(seconds)


@pytest.fixture
def parts(tmp_path):
    config = Config()
    config = replace(config, run=replace(config.run, keep_checkpoints=1, keep_best="eval/greedy/mean"))
    learners, journal = Learners(), Journal()
    log = MetricsLog(tmp_path / "metrics.jsonl")
    checkpoints = Checkpointer(config, RunFiles(tmp_path), learners, Sampler(), journal)
    return SimpleNamespace(checkpoints=checkpoints, learners=learners, journal=journal, log=log)


def names(learners: Learners) -> list[str]:
    return [name for name, _ in learners.calls]


def test_a_save_returns_before_it_is_written_and_the_next_waits_for_it(parts):
    with parts.checkpoints as checkpoints:
        checkpoints.save(1)
        assert names(parts.learners) == ["save"]
        checkpoints.save(2)
        assert names(parts.learners) == ["save", "wait", "save"]
    assert names(parts.learners) == ["save", "wait", "save", "wait"]  # the end waits too
    assert len(parts.journal.stops) == 2


def test_nothing_is_waited_for_twice_or_without_a_save(parts):
    with parts.checkpoints as checkpoints:
        checkpoints.finish()
        checkpoints.save(1)
        checkpoints.finish()
        checkpoints.finish()
    assert names(parts.learners) == ["save", "wait"]


def test_an_error_of_the_run_still_finishes_the_checkpoint_and_remains_the_error(parts):
    parts.learners.fails = UserError("learner[0] is gone")
    with pytest.raises(UserError, match="step 5 failed"), parts.checkpoints as checkpoints:
        checkpoints.save(4)
        raise UserError("step 5 failed")
    assert names(parts.learners) == ["save", "wait"]
    assert parts.journal.warnings == ["the last checkpoint was not finished: learner[0] is gone"]


def test_a_stop_at_once_does_not_wait(parts):
    with pytest.raises(KeyboardInterrupt), parts.checkpoints as checkpoints:
        checkpoints.save(4)
        raise KeyboardInterrupt
    assert names(parts.learners) == ["save"]


def test_a_checkpoint_that_failed_ends_the_run_at_the_next_save(parts):
    parts.learners.fails = UserError("learner[1] could not write shard")
    with pytest.raises(UserError, match="could not write shard"):
        parts.checkpoints.save(1)
        parts.checkpoints.save(2)


def test_a_checkpoint_that_went_with_its_learners_is_told(parts):
    parts.learners.restarted = True
    with parts.checkpoints as checkpoints:
        checkpoints.save(3)
    assert parts.journal.warnings == ["the checkpoint of step 3 was lost with the learners that wrote it"]


def test_a_new_best_is_told_and_spared(parts):
    parts.log.append(0, {"eval/greedy/mean": 0.9})  # before training: no checkpoint could be its
    for step, mean, is_best in ((1, 0.5, True), (2, 0.4, False), (3, 0.5, True), (4, None, False)):
        parts.log.append(step, {"eval/greedy/mean": mean})
        assert parts.checkpoints.is_new_best(step) == is_best
    for step in (1, 2):
        (parts.checkpoints.run_dir.checkpoints / f"step_{step:06d}").mkdir(parents=True)
    parts.checkpoints.save(4)
    (_, request), *_ = parts.learners.calls
    assert (request.keep, request.spare, dict(request.state)) == (1, 1, {"step": 4, "cursor": 7})


@pytest.fixture
def resumed(tmp_path):
    """A run that is continued, with checkpoints of steps 1 to 3."""
    for step in (1, 2, 3):
        write_checkpoint(tmp_path / "checkpoints", step, lambda folder: (folder / "weights").write_text("x"))
    learners, journal, sampler = Learners(), Journal(), Sampler()
    run_dir = SimpleNamespace(checkpoints=tmp_path / "checkpoints", resumed=True)
    checkpoints = Checkpointer(Config(), run_dir, learners, sampler, journal)
    return SimpleNamespace(checkpoints=checkpoints, learners=learners, journal=journal, sampler=sampler)


def useless(step: int) -> Unusable:
    return Unusable(f"checkpoint step_{step:06d}: weight/lm_head holds 3 numbers that are not finite")


def test_checkpoints_that_the_learners_find_useless_are_passed_over_by_name(resumed):
    resumed.learners.fails = {f"step_{step:06d}": useless(step) for step in (3, 2)}
    assert resumed.checkpoints.restore() == resumed.journal.continued == 1
    assert resumed.sampler.restored == (1, "step_000001")
    assert resumed.learners.calls == [("load", f"step_{step:06d}") for step in (3, 2, 1)]
    assert resumed.journal.warnings == [f"passed over: {useless(step)}" for step in (3, 2)]


def test_a_run_with_nothing_but_useless_checkpoints_stops_and_names_them(resumed):
    resumed.learners.fails = {f"step_{step:06d}": useless(step) for step in (3, 2, 1)}
    with pytest.raises(UserError, match="can be used: checkpoint step_000003.*step_000001.*run.resume=overwrite"):
        resumed.checkpoints.restore()


def test_a_learner_that_dies_while_it_loads_condemns_no_checkpoint(resumed):
    resumed.learners.fails = {"step_000003": ActorDied("learner[0] is gone")}
    with pytest.raises(ActorDied):
        resumed.checkpoints.restore()
    assert resumed.learners.calls == [("load", "step_000003")]
