"""Killed at any moment and run again, `select` leaves the same bytes as a call that was left alone."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engine_cases import Asked, bars, encoded, photo, reencoded

from mixed_r1_ray.data.schema import SCHEMA

SCRIPT = Path(__file__).with_name("killed_select.py")


def write_in_row_groups(path: Path, asked: list[Asked], rows: int = 20) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([one.record().to_row() for one in asked], schema=SCHEMA)
    pq.write_table(table, path, row_group_size=rows)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> tuple[Path, Path]:
    """Records with duplicates of each kind, and an evaluation set that some of them are from."""
    folder = tmp_path_factory.mktemp("inputs")
    asked = []
    for seed in range(40):
        picture = photo(seed, 240, 180)
        ways = {"png": encoded(picture), "again": encoded(picture), **reencoded(picture)}
        asked += [Asked(f"{seed}-{way}", data, answer=str(seed)) for way, data in ways.items()]
    charts = {height: encoded(bars((height, 50, 70))) for height in range(0, 90, 4)}
    asked += [Asked(f"bars-{height}", chart, answer=str(height)) for height, chart in charts.items()]
    write_in_row_groups(folder / "train" / "a.parquet", asked[::2])
    write_in_row_groups(folder / "train" / "b.parquet", asked[1::2])
    theirs = [Asked(f"bench-{seed}", reencoded(photo(seed, 240, 180))["jpeg"], "Who?") for seed in range(36, 44)]
    write_in_row_groups(folder / "bench" / "a.parquet", theirs)
    return folder / "train", folder / "bench"


def start(inputs: tuple[Path, Path], out: Path) -> subprocess.Popen:
    words = [sys.executable, str(SCRIPT), *map(str, inputs), str(out)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "selecting\n", process.stderr.read()
    return process


def content(folder: Path) -> dict[str, bytes]:
    """Every file, markers and signatures included."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory) -> tuple[dict[str, bytes], float]:
    """What a call that nobody kills leaves, and how long it takes."""
    out = tmp_path_factory.mktemp("whole") / "out"
    process, began = start(inputs, out), time.monotonic()
    assert process.wait(120) == 0, process.stderr.read()
    return content(out), time.monotonic() - began


def test_it_finds_the_duplicates_and_the_evaluation_data(whole):
    files, _ = whole
    lines = files["dropped.jsonl"].decode().splitlines()
    assert sum('"exact duplicate"' in line for line in lines) == 40
    assert sum('"near duplicate"' in line for line in lines) == 160
    assert sum('"contaminated"' in line and '"of": "bench"' in line for line in lines) == 4
    assert [name for name in files if name.startswith("selected-")] == [
        f"selected-{number:05d}-of-00004.parquet" for number in range(4)  # 36 photos and 23 charts, 16 a shard
    ]


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_moments_and_run_again_it_leaves_the_same_bytes(seed, inputs, whole, tmp_path):
    files, seconds = whole
    moments = random.Random(seed)
    for _ in range(3):
        process = start(inputs, tmp_path / "out")
        time.sleep(moments.uniform(0, seconds))
        process.kill()
        process.wait(60)
    process = start(inputs, tmp_path / "out")
    assert process.wait(120) == 0, process.stderr.read()
    assert content(tmp_path / "out") == files


def test_run_again_it_makes_nothing_anew(inputs, whole, tmp_path):
    assert start(inputs, tmp_path / "out").wait(120) == 0
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")}
    assert start(inputs, tmp_path / "out").wait(120) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
