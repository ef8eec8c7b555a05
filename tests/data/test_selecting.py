"""`select` as a command: what it writes, and how it is told what is wrong. Its tasks run here, without Ray."""

from __future__ import annotations

import io
import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mixed_r1_ray.data import selecting
from mixed_r1_ray.data.__main__ import main
from mixed_r1_ray.data.engine import signatures
from mixed_r1_ray.data.schema import Record, write_records

OFF = "difficulty.enabled=false"


@pytest.fixture(autouse=True)
def without_ray(monkeypatch):
    monkeypatch.setattr(signatures, "run_tasks", lambda function, calls, what: (function(*call) for call in calls))
    monkeypatch.setattr(selecting, "ray_for_data", lambda num_cpus: nullcontext())


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((80, 60), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def record(name: str, seed: int, question: str = "How many?", **options) -> Record:
    return Record(name, "vsr", "matching", (picture(seed),), ((80, 60),), question, "yes", **options)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Ten records, one of them twice, and an evaluation set that has the picture of one."""
    records = [record(f"r{seed}", seed, meta='{"subject": "x"}') for seed in range(10)]
    write_records(tmp_path / "in" / "a.parquet", [*records, record("again", 3)])
    write_records(tmp_path / "bench" / "a.parquet", [record("b7", 7, "Who?")])
    return tmp_path


def kept(folder: Path) -> list[Record]:
    files = sorted((folder / "out").glob("*.parquet"))
    return [Record.from_row(row) for file in files for row in pq.read_table(file).to_pylist()]


def run(folder: Path, *words: str) -> int:
    return main(["select", str(folder / "in"), "--conf", "select", "--out", str(folder / "out"), *words])


def test_it_writes_what_is_kept_and_says_what_is_not(folder, capsys):
    assert run(folder, "--against", f"bench={folder / 'bench'}", OFF) == 0
    ids = [one.id for one in kept(folder)]
    assert len(ids) == 9 and "r7" not in ids
    assert kept(folder)[0].meta == '{"subject": "x"}'  # unchanged: no model has answered
    lines = [json.loads(line) for line in (folder / "out" / "dropped.jsonl").read_text().splitlines()]
    exact, contaminated = sorted(lines, key=lambda line: line["stage"], reverse=True)
    assert {exact["id"], exact["resembles"]} == {"r3", "again"}
    assert exact["file"] == "a.parquet" and exact["of"] is None
    assert contaminated == {
        "id": "r7", "source": "vsr", "reward_type": "matching", "file": "a.parquet", "row": 7,
        "stage": "contaminated", "reason": "resembles b7 of bench", "resembles": "b7", "of": "bench",
    }  # fmt: skip
    (row,) = json.loads((folder / "out" / "summary.json").read_text())["records"]
    assert (row["found"], row["exact duplicate"], row["contaminated"], row["kept"]) == (11, 1, 1, 9)
    printed = capsys.readouterr().out
    assert "contaminated" in printed and "near duplicate" not in printed


def test_other_settings_over_the_same_output_leave_nothing_of_the_old(folder):
    assert run(folder, OFF, "shard_records=4") == 0
    assert len([*(folder / "out").glob("*.parquet")]) == 3
    assert run(folder, OFF, "duplicates.exact=false", "duplicates.near=false") == 0
    assert [path.name for path in (folder / "out").glob("*.parquet")] == ["selected-00000-of-00001.parquet"]
    assert len(kept(folder)) == 11
    assert (folder / "out" / "dropped.jsonl").read_text() == ""


@pytest.mark.parametrize(
    "words, message",
    [
        ((OFF, "duplicates.exakt=false"), "unknown key duplicates.exakt; did you mean exact?"),
        ((OFF, "model.path=x"), "model.path=x: bears on the model that answers"),
        (("difficulty.conf=nothing",), "conf=nothing: unknown"),
        (("difficulty.conf=quickstart", "rollout.temperatur=2"), "did you mean rollout.temperature"),
        ((OFF, "--against", "bench"), "--against bench=: is not NAME=DIR"),
        ((OFF, "--against", "bench=nowhere"), "nowhere: there is no such file or folder"),
    ],
)
def test_mistakes_are_told_before_anything_is_done(folder, capsys, words, message):
    assert run(folder, *words) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_the_output_may_not_hold_the_input(folder, capsys):
    assert main(["select", str(folder / "in"), "--conf", "select", "--out", str(folder / "in"), OFF]) == 2
    assert "is read from there; name another folder" in capsys.readouterr().err


def test_where_nothing_is_kept_the_ledger_still_says_why(folder, capsys):
    assert run(folder, OFF, "--against", f"all={folder / 'in'}") == 2
    assert "no record is kept: found 11, exact duplicate 1, contaminated 10" in capsys.readouterr().err
    assert len((folder / "out" / "dropped.jsonl").read_text().splitlines()) == 11
