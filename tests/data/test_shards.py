"""Shards: whole or not there, found again by what they were made of."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixed_r1_ray.data.schema import SCHEMA, Record
from mixed_r1_ray.data.shards import ShardWriter, finished_shard, finished_shards, prepare_folder
from mixed_r1_ray.errors import UserError


def record(number: int) -> Record:
    return Record(f"r{number}", "shapes", "matching", (b"x" * 10,), ((4, 3),), "Is it red?", "yes")


def write(path, count: int, made_of: str = "inputs"):
    with ShardWriter(path, made_of) as writer:
        for number in range(count):
            writer.add(record(number))
        writer.details["skipped"] = 2
    return writer.shard


def test_a_finished_shard_is_found_again_with_its_hash_and_details(tmp_path):
    path = tmp_path / "a.parquet"
    shard = write(path, 600)
    assert shard == finished_shard(path, "inputs") == finished_shards(tmp_path)[0]
    assert (shard.num_rows, shard.details) == (600, {"skipped": 2})
    assert shard.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    table = pq.read_table(path)
    assert table.schema == SCHEMA and table.column("id").to_pylist() == [f"r{n}" for n in range(600)]
    assert pq.ParquetFile(path).metadata.num_row_groups == 3


def test_a_shard_of_other_inputs_or_one_that_was_cut_is_not_finished(tmp_path):
    path = tmp_path / "a.parquet"
    write(path, 3)
    assert finished_shard(path, "other inputs") is None
    path.write_bytes(path.read_bytes()[:-5])
    assert finished_shard(path, "inputs") is None


def test_an_error_in_the_middle_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), ShardWriter(tmp_path / "a.parquet", "inputs") as writer:
        writer.add(record(0))
        raise KeyError("bad")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_full_disk_is_said_in_words_and_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match=r"a\.parquet: cannot be written .*No space left.*free some space"):
        with ShardWriter(tmp_path / "a.parquet", "inputs"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_kill_in_the_middle_leaves_no_shard_and_the_next_run_cleans_up(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from mixed_r1_ray.data.shards import ShardWriter\n"
        "with ShardWriter(Path(sys.argv[1]) / 'a.parquet', 'inputs'): os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert [path.suffix for path in tmp_path.iterdir() if path.is_file()] == [".tmp"]
    assert finished_shards(tmp_path) == []
    prepare_folder(tmp_path, ["a.parquet"])
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []


def test_shards_of_an_earlier_plan_go_and_files_of_others_are_not_touched(tmp_path):
    for name in ("a.parquet", "b.parquet"):
        write(tmp_path / name, 1)
    prepare_folder(tmp_path, ["a.parquet"])
    assert [shard.name for shard in finished_shards(tmp_path)] == ["a.parquet"]
    pq.write_table(pa.table({"mine": [1]}), tmp_path / "mine.parquet")
    with pytest.raises(UserError, match="mine.parquet: was not written by this command"):
        prepare_folder(tmp_path, ["c.parquet"])
    assert {path.name for path in tmp_path.glob("*.parquet")} == {"a.parquet", "mine.parquet"}


def test_tables_are_written_beside_records_in_order(tmp_path):
    rows = pa.Table.from_pylist([record(1).to_row()], schema=SCHEMA)
    with ShardWriter(tmp_path / "a.parquet", "inputs") as writer:
        writer.add(record(0))
        writer.add_table(rows)
        writer.add(record(2))
    assert pq.read_table(tmp_path / "a.parquet").column("id").to_pylist() == ["r0", "r1", "r2"]
