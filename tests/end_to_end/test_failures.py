"""A run whose actors are killed while it trains ends by itself, and is the run without the kills."""

from __future__ import annotations

import os
import signal

import pytest

CLOCKED = ("time/", "throughput/")
ROUNDING = "mismatch/"  # see test_resume.py
PARITY_BOUND = 1e-4


def pids(run, actor_class: str) -> list[int]:
    """Processes of a run's actors of one class, by the title that Ray gives them."""
    return [pid for pid, line in run.processes().items() if line.startswith(f"ray::{actor_class}")]


def kill(run, actor_class: str, number: signal.Signals = signal.SIGKILL) -> None:
    found = pids(run, actor_class)
    assert found, f"no {actor_class} among {sorted(run.processes().values())}"
    for pid in found:
        os.kill(pid, number)


@pytest.fixture(scope="module")
def battered_run(start):
    """The plain run; each kind of actor is killed once, the learner last, which takes it back to a checkpoint."""
    run = start("run.max_steps=4", "run.checkpoint_every=1", "run.keep_checkpoints=null")
    run.await_step(1)
    for actor_class in ("RolloutWorker", "DataWorker", "ReferenceWorker", "RewardWorker"):
        kill(run, actor_class)
    run.await_step(3)
    kill(run, "LearnerWorker")
    assert run.finish() == 0, run.output[-6000:]
    return run


def training_lines(run) -> dict[int, dict]:
    """Metrics by step, without what a clock says."""
    return {
        line["step"]: {name: value for name, value in line.items() if not name.startswith(CLOCKED)}
        for line in run.metrics()
        if "reward/mean" in line
    }


def test_what_was_killed_is_named_and_the_run_goes_on(battered_run):
    assert "rollout[0] is replaced" in battered_run.output
    assert "the run goes back to its last checkpoint" in battered_run.output
    assert "learner ranks 0-0" in battered_run.output
    assert battered_run.leftovers() == {}


def test_the_curve_is_that_of_the_run_without_kills(plain_run, battered_run):
    undisturbed, battered = training_lines(plain_run), training_lines(battered_run)
    assert [line["step"] for line in battered_run.metrics() if "reward/mean" in line] == [1, 2, 3, 4]
    for step, line in undisturbed.items():
        assert battered[step].keys() == line.keys()
        for name, value in line.items():
            if name.startswith(ROUNDING):
                assert max(value, battered[step][name]) <= PARITY_BOUND, (step, name)
            else:
                assert battered[step][name] == pytest.approx(value, rel=1e-6, abs=1e-6), (step, name)
