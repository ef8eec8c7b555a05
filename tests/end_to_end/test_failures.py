"""A run whose actors are killed while it trains ends by itself, and is the run without the kills."""

from __future__ import annotations

import os
import signal

import pytest
from real_runs import assert_same_curve, end_marked_processes


def pids(run, actor_class: str) -> list[int]:
    """Processes of a run's actors of one class, by the title that Ray gives them."""
    return [pid for pid, line in run.processes().items() if line.startswith("ray::") and actor_class in line]


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


@pytest.mark.more_runs
def test_what_was_killed_is_named_and_the_run_goes_on(battered_run):
    assert "rollout[0] is replaced" in battered_run.output
    assert "the run goes back to its last checkpoint" in battered_run.output
    assert "learner ranks 0-0" in battered_run.output
    assert battered_run.leftovers() == {}


@pytest.mark.more_runs
def test_the_curve_is_that_of_the_run_without_kills(plain_run, battered_run):
    assert [line["step"] for line in battered_run.metrics() if "reward/mean" in line] == [1, 2, 3, 4]
    assert_same_curve(plain_run, battered_run)


@pytest.fixture(scope="module")
def hung_run(start):
    """A run whose engine, then whose learner, is stopped (SIGSTOP): neither dies, and neither answers."""
    deadlines = ("rollout.timeout_s=60", "learner.timeout_s=60", "cluster.stall_s=20")
    run = start("run.max_steps=4", "run.checkpoint_every=1", "data.eval=null", *deadlines)
    run.await_step(1)
    kill(run, "RolloutWorker", signal.SIGSTOP)
    run.await_step(2)
    kill(run, "LearnerWorker", signal.SIGSTOP)
    assert run.finish() == 0, run.output[-6000:]
    return run


@pytest.mark.slow
def test_what_hangs_is_named_within_its_deadline_and_the_run_goes_on(hung_run):
    assert "rollout[0] generating at step 2: no group finished within 60 s" in hung_run.output
    assert "learner ranks 0-0" in hung_run.output and "no answer within 60 s" in hung_run.output
    assert [line["step"] for line in hung_run.metrics() if "reward/mean" in line] == [1, 2, 3, 4]
    assert hung_run.leftovers() == {}


@pytest.mark.slow
def test_a_stall_is_told_with_who_waits_for_whom_and_their_stacks(hung_run):
    stalls = [file.read_text() for file in sorted((hung_run.folder / "stalls").glob("*.txt"))]
    engine, learner = (next(text for text in stalls if f"of: {who}" in text) for who in ("rollout[0]", "learner ranks"))
    assert "rollout[0]: alive, process" in engine and "is stopped (SIGSTOP); no answer" in engine
    assert "learner[0]: alive" in engine and "; idle" in engine
    assert "== driver" in learner and "driver.py" in learner and "learner[0]: alive, process" in learner


@pytest.mark.slow
def test_all_killed_while_a_checkpoint_is_written_the_one_before_is_taken(start):
    run = start("run.max_steps=1000", "run.checkpoint_every=1", "run.keep_checkpoints=null", "data.eval=null")
    folder = run.folder / "checkpoints"
    run.await_step(2)
    written = {path.name for path in folder.glob("step_*")}
    while not (partial := list(folder.glob(".step_*.partial/*optimizer*"))):
        assert run.process.poll() is None, run.output[-3000:]
    end_marked_processes(run.mark)
    assert run.finish() == -signal.SIGKILL and run.leftovers() == {}
    assert partial[0].parent.is_dir() and {path.name for path in folder.glob("step_*")} >= written
    last = max(int(path.name.removeprefix("step_")) for path in folder.glob("step_*"))
    done = max(line["step"] for line in run.metrics())
    continued = start("run.max_steps=1000", "run.resume=auto", "data.eval=null", folder=run.folder)
    continued.await_output(f"continuing after step {last}")
    continued.await_step(done + 1)
    continued.interrupt()
    continued.finish()
    assert not partial[0].exists()
