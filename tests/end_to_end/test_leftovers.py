"""Two dozen runs, one after the other, leave nothing behind."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
RUNS = 24
SETTINGS = ("run.max_steps=2", "run.checkpoint_every=1", "data.eval=null")


def shared_memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir()}


def meeting_places() -> set[Path]:
    """Where learner ranks of one machine meet."""
    return set(Path(tempfile.gettempdir()).glob("mixed_r1_ray_*"))


def test_no_process_shared_memory_port_or_folder_is_left(start):
    memory, meetings = shared_memory(), meeting_places()
    for number in range(RUNS):
        run = start(*SETTINGS)
        assert run.finish() == 0, (number, run.output[-6000:])
        assert run.leftovers() == {}, number  # a port belongs to a process
        assert run.listening() == set(), number
    assert shared_memory() <= memory
    assert meeting_places() <= meetings
