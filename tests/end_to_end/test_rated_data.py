"""A run over mixed, rated and partly damaged data takes what it was told to, and goes on after a kill as without one."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.slow

STEPS = 4


@pytest.fixture(scope="module")
def settings(plain_run, cache, tmp_path_factory) -> list[str]:
    """Overrides of a run on the quickstart's records, every row rated and the picture of every fifth cut short."""
    from mixed_r1_ray.data.schema import SCHEMA

    (made,) = cache.glob("*/train.parquet")
    rows = pq.read_table(made).to_pylist()
    for number, row in enumerate(rows):
        row["meta"] = json.dumps({"pass_rate": (number % 11) / 10})
        if number % 5 == 0:
            row["images"][0]["bytes"] = row["images"][0]["bytes"][:50]
    folder = tmp_path_factory.mktemp("rated")
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "a.parquet")
    return [
        f"data.train={folder}",
        "data.mixing=by_type",
        "data.weights.open_ended=5",
        "data.curriculum=easy_to_hard",
        "data.curriculum_steps=3",
        "data.max_bad_fraction=0.6",
        "data.num_workers=2",
        "run.checkpoint_every=2",
    ]


@pytest.fixture(scope="module")
def whole_run(settings, finished):
    return finished(*settings, f"run.max_steps={STEPS}")


@pytest.fixture(scope="module")
def resumed_run(settings, start):
    """Killed once its third step stands, continued from the second."""
    run = start(*settings, "run.max_steps=1000")
    run.await_step(3)
    os.kill(run.process.pid, signal.SIGKILL)
    run.finish()
    assert run.leftovers() == {}
    again = start(*settings, f"run.max_steps={STEPS}", "run.resume=auto", folder=run.folder)
    assert again.finish() == 0, again.output[-6000:]
    return again


def drawn(run, step: int) -> Counter:
    """Prompts by type that the step learned from."""
    rows = pq.read_table(run.folder / "rollouts" / f"step_{step:06d}.parquet").to_pylist()
    return Counter(kind for _, kind in {(row["prompt_id"], row["reward_type"]) for row in rows})


def test_bad_rows_are_counted_and_the_shares_are_what_weights_say(whole_run):
    counts = [line["data/bad_rows"] for _, line in sorted(whole_run.training_lines().items())]
    assert counts == sorted(counts) and counts[-1] > 0
    for step in range(1, STEPS + 1):
        kinds = drawn(whole_run, step)
        assert kinds["open_ended"] <= 5 and all(kinds[kind] <= 1 for kind in ("matching", "chart", "iou"))
    learned_from = sum(sum(drawn(whole_run, step).values()) for step in range(1, STEPS + 1))
    assert 0 < learned_from <= 8 * STEPS - counts[-1]  # a bad row that is drawn twice counts once


def test_metrics_after_a_kill_are_those_without_one_bad_rows_included(whole_run, resumed_run):
    assert "continuing after step 2" in resumed_run.output
    one, two = whole_run.training_lines(), resumed_run.training_lines()
    assert sorted(one) == sorted(two) == list(range(1, STEPS + 1))
    for step, line in one.items():
        assert two[step].keys() == line.keys()
        for name, value in line.items():
            assert two[step][name] == pytest.approx(value, rel=1e-6, abs=1e-6), (step, name)


def test_the_copy_of_the_data_was_made_once_for_all_runs_and_workers(whole_run, resumed_run, cache):
    assert len(list((Path(cache) / "records").glob("a-*.arrow"))) == 1
