"""`select` with the real tiny model: what a killed call had answered is kept, and the end is the same, to the byte."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from real_runs import ROOT, START_S, end_marked_processes, run_environment

from mixed_r1_ray.data.schema import Record
from mixed_r1_ray.data.synthetic import build_quickstart_data

pytestmark = pytest.mark.slow
SAMPLES, CHUNK_ROWS, RECORDS_PER_TYPE = 2, 32, 64
WORDS = (
    "tiny.warm_start_steps=20",
    "tiny.threads=1",
    f"tiny.train_per_type={RECORDS_PER_TYPE}",
    "tiny.eval_per_type=8",
    "rollout.max_new_tokens=24",
    "cluster.num_cpus=2",
    f"difficulty.samples={SAMPLES}",
    f"difficulty.chunk_rows={CHUNK_ROWS}",
    *(f"difficulty.bands.{kind}.mean=[0,1]" for kind in ("matching", "chart", "iou", "open_ended")),
    *(f"difficulty.bands.{kind}.min_std=0" for kind in ("iou", "open_ended")),
)


class Call:
    """One `select` as a process of its own."""

    def __init__(self, records: Path, out: Path, cache: Path):
        self.mark, self.log = uuid.uuid4().hex, out.with_suffix(f".{uuid.uuid4().hex[:8]}.log")
        words = [sys.executable, "-m", "mixed_r1_ray.data", "select", str(records), "--conf", "select_quickstart"]
        words += ["--out", str(out), "--num-cpus", "2", f"tiny.cache_dir={cache}", *WORDS]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                words,
                cwd=ROOT,
                env=run_environment(self.mark),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def finish(self) -> None:
        try:
            assert self.process.wait(START_S) == 0, self.log.read_text()[-4000:]
        finally:
            end_marked_processes(self.mark)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)
        end_marked_processes(self.mark)


def answered(out: Path) -> dict[Path, int]:
    """Finished chunks, and when each was written."""
    return {path: path.stat().st_mtime_ns for path in (out / "work" / "answers").glob("*.parquet")}


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def records(cache) -> Path:
    return build_quickstart_data(cache, train_per_type=RECORDS_PER_TYPE, eval_per_type=8)[0]


@pytest.fixture(scope="module")
def whole(records, cache, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    Call(records, out, cache).finish()
    return out


def test_every_record_is_answered_and_kept_with_what_it_earned(records, whole):
    kept, given = ([Record.from_row(row) for row in pq.read_table(place).to_pylist()]
                   for place in (next(whole.glob("selected-*.parquet")), records))  # fmt: skip
    assert [one.id for one in kept] == [one.id for one in given]
    answers = {row["id"]: row for path in answered(whole) for row in pq.read_table(path).to_pylist()}
    for one in kept:
        meta, rewards = json.loads(one.meta), answers[one.id]["rewards"]
        assert meta["pass_rate"] == pytest.approx(sum(rewards) / SAMPLES, abs=1e-6)
        assert meta["pass_rate_samples"] == SAMPLES and meta["pass_rate_model"] == "tiny:internvl"
        assert "think" in meta  # what was there before stays
    assert any(0 < json.loads(one.meta)["pass_rate"] for one in kept)
    assert (whole / "pass_rates.svg").read_text().startswith("<svg")


def test_killed_while_it_answers_and_run_again_it_leaves_the_same_bytes(records, whole, cache, tmp_path):
    out, enough = tmp_path / "out", random.Random().randint(1, len(answered(whole)) - 1)
    killed = Call(records, out, cache)
    deadline = time.monotonic() + START_S
    while len(answered(out)) < enough:
        assert killed.process.poll() is None and time.monotonic() < deadline, killed.log.read_text()[-4000:]
        time.sleep(0.01)
    killed.kill()
    before = answered(out)
    Call(records, out, cache).finish()
    assert content(out) == content(whole), f"killed after {enough} chunks"
    assert {path: answered(out)[path] for path in before} == before
