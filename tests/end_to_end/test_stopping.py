"""Ctrl-C at any moment: a clear message, exit code 130, no process left."""

from __future__ import annotations

import time

import pytest

SOON_S = 60.0  # a few seconds on an idle machine


@pytest.mark.parametrize("moment", ["starting Ray", pytest.param("starting learners", marks=pytest.mark.more_runs)])
def test_ctrl_c_during_the_start_ends_the_run_at_once(start, moment):
    run = start("run.max_steps=2")
    run.await_output(moment)
    run.interrupt()
    assert run.finish(SOON_S) == 130
    assert "interrupted" in run.output.splitlines()[-1]
    assert "Traceback" not in run.output
    assert run.leftovers() == {}


@pytest.mark.more_runs
def test_second_ctrl_c_stops_at_once(start):
    run = start("run.max_steps=1000", "rollout.max_new_tokens=200", "rollout.group_size=16")
    run.await_step(1)
    run.interrupt()
    run.await_output("once more to stop at once")
    time.sleep(0.05)
    run.interrupt()
    assert run.finish(SOON_S) == 130
    assert "Traceback" not in run.output
    assert run.leftovers() == {}
