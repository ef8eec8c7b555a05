"""The clock of a step."""

from __future__ import annotations

import pytest

from mixed_r1_ray import clock as module
from mixed_r1_ray.clock import Clock


@pytest.fixture
def now(monkeypatch):
    """A time that stands still until it is moved: now.seconds += 1."""

    class Now:
        seconds = 100.0

    monkeypatch.setattr(module.time, "perf_counter", lambda: Now.seconds)
    return Now


def test_phases_add_up_and_the_rest_is_idle(now):
    clock = Clock()
    for seconds in (1.0, 2.0):
        with clock.phase("generate"):
            now.seconds += seconds
        now.seconds += 0.5
    with clock.phase("learn"):
        now.seconds += 4.0
    assert clock.metrics() == {
        "time/generate_s": 3.0,
        "time/learn_s": 4.0,
        "time/step_s": 8.0,
        "time/idle_s": 1.0,
    }


def test_a_phase_that_fails_is_counted_and_its_error_passes(now):
    clock = Clock()
    with pytest.raises(KeyError), clock.phase("sync"):
        now.seconds += 2.0
        raise KeyError
    assert clock.metrics()["time/sync_s"] == 2.0


def test_a_step_without_phases_is_all_idle(now):
    clock = Clock()
    now.seconds += 3.0
    assert clock.metrics() == {"time/step_s": 3.0, "time/idle_s": 3.0}
