"""A user's reward that hangs, raises, returns NaN or kills its process costs its own samples and nothing else."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.more_runs
FAULTY = '''
import os, signal, time

def score(sample):
    if sample.sample_index == 0:
        time.sleep(10**6)
    if sample.sample_index == 1:
        return 1 / 0
    if sample.sample_index == 2:
        return float("nan")
    if sample.sample_index == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return sample.sample_index / 10
'''
REASONS = ("took longer than 1 s", "ZeroDivisionError", "nan", "SIGKILL")


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    """Two steps of groups of 8, in which each fault befalls one sample of each caption."""
    file = tmp_path_factory.mktemp("custom") / "faulty.py"
    file.write_text(FAULTY)
    return finished(
        f"reward.custom={file}:score", "reward.custom_types=[open_ended]", "reward.custom_timeout_s=1",
        "reward.max_unscored_fraction=0.2", "rollout.group_size=8", "data.eval=null", "run.max_steps=2",
    )


@pytest.fixture(scope="module")
def captions(run) -> list[dict]:
    rows = [row for step in (1, 2) for row in pq.read_table(run.folder / f"rollouts/step_{step:06d}.parquet").to_pylist()]
    return [row for row in rows if row["reward_type"] == "open_ended"]


def test_faulty_samples_are_unscored_and_the_others_keep_their_value(captions):
    assert len(captions) == 2 * 2 * 8
    for row in captions:
        if row["sample_index"] < 4:
            assert (row["reward_total"], row["advantage"]) == (None, None)
        else:
            assert row["reward_task"] == pytest.approx(row["sample_index"] / 10)
            assert row["advantage"] is not None


def test_faults_are_counted(run):
    assert [line["rewards/unscored"] for line in run.metrics()] == [8, 8]


@pytest.mark.parametrize("reason", REASONS)
def test_every_fault_is_named_with_its_sample(run, reason):
    texts = [json.loads(line)["text"] for line in (run.folder / "warnings.jsonl").read_text().splitlines()]
    (text,) = [text for text in texts if reason in text]
    assert f"sample {REASONS.index(reason)}" in text and "_caption" in text
