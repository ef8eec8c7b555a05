"""`convert` as a whole: Ray tasks, shards, resuming, the summary, exit codes."""

from __future__ import annotations

import io
import json

import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image

from mixed_r1_ray.data.__main__ import main
from mixed_r1_ray.data.converters import own, parts
from mixed_r1_ray.data.converters.base import Row
from mixed_r1_ray.data.converters.writing import Conversion, chosen
from mixed_r1_ray.data.converting import convert
from mixed_r1_ray.data.shards import finished_shards
from mixed_r1_ray.data.tasks import ray_for_data, run_tasks
from mixed_r1_ray.errors import UserError


@pytest.fixture(scope="module", autouse=True)
def cluster():
    with ray_for_data(num_cpus=1):
        yield


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """Five rows and their picture, in parts of two."""
    monkeypatch.setattr(parts, "ROWS", 2)
    folder = tmp_path / "mine"
    folder.mkdir()
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(buffer, "PNG")
    (folder / "a.png").write_bytes(buffer.getvalue())
    lines = [{"question": f"Is it {n}?", "answer": "yes", "image": "a.png"} for n in range(5)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def conversion(folder, out, fraction=1.0) -> Conversion:
    converter = own.OwnJsonLines({}, {"reward_type": "matching", "source": "mine"})
    return Conversion(converter, folder, folder, out, "train", fraction)


def contents(out) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("*.parquet"))}


def test_every_part_becomes_a_shard_in_order(rows, tmp_path):
    made = convert(conversion(rows, tmp_path / "out"))
    assert [shard.name for shard in made] == [f"mine-train-{n:05d}.parquet" for n in range(3)]
    assert made == finished_shards(tmp_path / "out")
    ids = pq.read_table(tmp_path / "out").column("id").to_pylist()
    assert ids == [f"mine-train-rows-{n:06d}" for n in range(5)]


def test_after_a_kill_only_what_is_missing_is_made_and_the_result_is_the_same(rows, tmp_path):
    convert(conversion(rows, tmp_path / "whole"))
    out = tmp_path / "out"
    convert(conversion(rows, out))
    kept = (out / "mine-train-00000.parquet").stat().st_ino
    (out / ".done/mine-train-00001.parquet.json").unlink()  # killed between rename and marker
    (out / "mine-train-00002.parquet").unlink()
    (out / ".mine-train-00002.parquet.77.tmp").write_bytes(b"half")
    convert(conversion(rows, out))
    assert contents(out) == contents(tmp_path / "whole")
    assert (out / "mine-train-00000.parquet").stat().st_ino == kept
    assert not list(out.glob(".*.tmp"))


def test_a_changed_input_and_fewer_rows_leave_no_stale_shard(rows, tmp_path):
    out = tmp_path / "out"
    convert(conversion(rows, out))
    (out / "other-train-00000.parquet").write_bytes(b"of another source")
    lines = (rows / "rows.jsonl").read_text().splitlines(keepends=True)
    (rows / "rows.jsonl").write_text("".join(lines[1:3]))
    made = convert(conversion(rows, out))
    assert [shard.num_rows for shard in made] == [2]
    assert set(contents(out)) == {"mine-train-00000.parquet", "other-train-00000.parquet"}
    assert pq.read_table(out / made[0].name).column("question").to_pylist() == ["Is it 1?", "Is it 2?"]


def test_nothing_convertible_is_an_error_with_the_reasons(rows, tmp_path):
    (rows / "a.png").unlink()
    with pytest.raises(
        UserError, match=r"no row of jsonl makes a record.*its picture is not there \(5 rows\)"
    ):
        convert(conversion(rows, tmp_path / "out"))


def test_the_share_taken_depends_on_the_row_alone_and_nests():
    def taken(fraction):
        return {key for key in range(4000) if chosen(Row("a.json", key, str(key), {}), fraction)}

    half, tenth = taken(0.5), taken(0.1)
    assert tenth < half and len(taken(1.0)) == 4000
    assert abs(len(half) - 2000) < 4 * 32 and abs(len(tenth) - 400) < 4 * 19  # four standard deviations


def test_the_command_prints_sources_and_what_was_left_out(rows, tmp_path, capsys):
    with open(rows / "rows.jsonl", "a") as file:
        file.write("not json\n")
    words = ["convert", "jsonl", "--from", str(rows), "--out", str(tmp_path / "out")]
    assert main([*words, "--set", "reward_type=matching", "source=mine"]) == 0
    printed = capsys.readouterr().out
    assert "mine" in printed and "5" in printed
    assert "is not JSON" in printed and "rows.jsonl, row 5" in printed
    assert main([*words, "--set", "reward_type"]) == 2
    assert "--set reward_type: is not FIELD=VALUE" in capsys.readouterr().err
    assert main(["convrt"]) == 2 and main([]) == 2


@pytest.fixture
def double():
    """A function that Ray can send to a worker, which cannot import this file."""

    def double(number: int) -> int:
        if number == 3:
            raise UserError("three is not doubled")
        return 2 * number

    return double


def test_no_more_tasks_are_asked_for_than_keep_the_machine_busy(double):
    asked = []
    results = run_tasks(double, ((asked.append(n) or 4 + n,) for n in range(20)), what="doubling")
    first = next(results)
    assert len(asked) <= 2 * ray.cluster_resources()["CPU"] + 1
    assert sorted([first, *results]) == [2 * n for n in range(4, 24)]


def test_an_error_of_a_task_comes_back_as_it_was_raised(double):
    with pytest.raises(UserError, match="^three is not doubled$"):
        list(run_tasks(double, ((n,) for n in range(5)), what="doubling"))
