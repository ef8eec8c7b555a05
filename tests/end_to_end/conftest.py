"""Runs that several end-to-end tests look at: each is started once a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from real_runs import RealRun, end_marked_processes, memory_watched, start_run


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """Where the tiny models and the data of this session are kept."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def start(cache, tmp_path_factory) -> Iterator[Callable[..., RealRun]]:
    """Starts a run in a fresh folder, or in `folder`; whatever still runs at the end of the session is killed."""
    runs: list[RealRun] = []

    def start(*overrides: str, folder: Path | None = None, **options) -> RealRun:
        folder = folder or tmp_path_factory.mktemp("runs") / "run"
        runs.append(start_run(folder, cache, *overrides, **options))
        return runs[-1]

    yield start
    for run in runs:
        end_marked_processes(run.mark)


@pytest.fixture(scope="session")
def finished(start) -> Callable[..., RealRun]:
    """Starts a run and waits for a good end."""

    def finished(*overrides: str, **options) -> RealRun:
        run = start(*overrides, **options)
        assert run.finish() == 0, run.output[-6000:]
        return run

    return finished


@pytest.fixture(scope="session")
def watched_run(start) -> tuple[RealRun, list[int]]:
    """Four steps of the tiny InternVL on one of each actor, a checkpoint after each; and its memory over time."""
    run = start("run.max_steps=4", "run.checkpoint_every=1", "run.keep_checkpoints=null")
    with memory_watched(run) as memory:
        run.await_step(2)
        run.listened_at, run.waits = run.listening(), run.openmp_waits()
        assert run.finish() == 0, run.output[-6000:]
    return run, memory


@pytest.fixture(scope="session")
def plain_run(watched_run) -> RealRun:
    """The same run without its memory."""
    return watched_run[0]
