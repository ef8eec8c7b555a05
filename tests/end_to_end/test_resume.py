"""A run whose driver is killed in mid-step goes on, by `run.resume=auto`, as if it had not been."""

from __future__ import annotations

import os
import signal

import pytest
from real_runs import assert_same_curve


@pytest.fixture(scope="module")
def killed_run(start):
    """A run like the plain one, killed once its third step's metrics stand and no checkpoint later than step 2."""
    run = start("run.max_steps=1000", "run.checkpoint_every=2", "run.keep_checkpoints=null")
    run.await_step(3)
    run.await_checkpoint(2)
    os.kill(run.process.pid, signal.SIGKILL)
    run.finish()
    return run


@pytest.fixture(scope="module")
def resumed_run(killed_run, start):
    """The killed run continued to the fourth step's end, and there stopped by Ctrl-C."""
    assert killed_run.leftovers() == {}
    cut = killed_run.folder / "metrics.jsonl"
    cut.write_bytes(cut.read_bytes() + b'{"step": 4, "reward/me')  # as a driver dies in the middle of a write
    run = start(
        "run.max_steps=1000",
        "run.checkpoint_every=2",
        "run.keep_checkpoints=null",
        "run.resume=auto",
        folder=killed_run.folder,
    )
    run.await_step(4)
    run.interrupt()
    run.finish()
    return run


def tensors(run, step: int, name: str) -> dict:
    from safetensors.torch import load_file

    return load_file(run.folder / "checkpoints" / f"step_{step:06d}" / name)


def test_no_process_outlives_a_killed_driver(killed_run):
    assert killed_run.process.returncode == -signal.SIGKILL
    assert killed_run.leftovers() == {}


def test_curve_after_a_kill_is_the_curve_without_one(plain_run, resumed_run):
    assert "continuing after step 2" in resumed_run.output
    assert_same_curve(plain_run, resumed_run)


def test_each_step_stands_once_in_the_metrics_of_a_continued_run(resumed_run):
    numbers = [line["step"] for line in resumed_run.metrics() if "reward/mean" in line]
    assert numbers == sorted(set(numbers))
    assert numbers[:4] == [1, 2, 3, 4]


def test_weights_after_a_kill_are_the_weights_without_one(plain_run, resumed_run):
    one, two = (tensors(run, 4, "policy/model.safetensors") for run in (plain_run, resumed_run))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) <= 1e-6


def test_optimizer_state_and_its_step_count_come_back(plain_run, resumed_run):
    shard = "optimizer-00000-of-00001.safetensors"
    one, two = (tensors(run, 4, shard) for run in (plain_run, resumed_run))
    assert int(one["optimizer_steps"]) == int(two["optimizer_steps"]) == 4
    moments = [name for name in one if name.startswith("exp_avg")]
    assert len(moments) > 2 and one.keys() == two.keys()
    assert max(float((one[name] - two[name]).abs().max()) for name in moments) <= 1e-6


def test_continuing_with_another_learning_rate_is_refused(resumed_run, start):
    run = start("run.resume=auto", "learner.learning_rate=1e-3", folder=resumed_run.folder)
    assert run.finish() == 1
    assert "learner.learning_rate: 0.0001 -> 0.001" in run.output
    assert "Traceback" not in run.output


def test_ctrl_c_in_mid_run_finishes_the_step_and_writes_a_checkpoint(resumed_run):
    run = resumed_run
    assert run.process.returncode == 130
    last = max(run.training_lines())
    assert (run.folder / "checkpoints" / "latest").resolve().name == f"step_{last:06d}"
    assert "stopping after this step" in run.output
    assert "run.resume=auto" in run.output.splitlines()[-1]
    assert "Traceback" not in run.output
    assert run.leftovers() == {}
