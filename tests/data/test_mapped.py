"""The Arrow copy of a Parquet file: made once, by one, whole or not at all, and never taken for another file's."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixed_r1_ray.data import mapped
from mixed_r1_ray.data.mapped import MappedRows
from mixed_r1_ray.data.schema import SCHEMA, Record, write_records
from mixed_r1_ray.errors import UserError

PICTURE = os.urandom(20_000)
GOOD = Record("r0", "shapes", "matching", (PICTURE,), ((40, 30),), "Is it red?", "yes")


def shard(path: Path, count: int, row_group: int = 100, **options) -> Path:
    rows = [replace(GOOD, id=f"r{number}", images=(PICTURE + bytes([number % 251]),)) for number in range(count)]
    table = pa.Table.from_pylist([row.to_row() for row in rows], schema=SCHEMA)
    pq.write_table(table, path, row_group_size=row_group, **options)
    return path


def copies(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.arrow"))


@pytest.mark.parametrize("row_group", [1, 100, 256, 300, 10_000])
def test_any_row_is_the_one_of_its_number_however_the_file_is_cut_into_row_groups(tmp_path, row_group):
    rows = MappedRows(shard(tmp_path / "a.parquet", 700, row_group), tmp_path / "cache")
    assert len(rows) == 700
    for number in (0, 1, 99, 100, 255, 256, 299, 300, 511, 699):
        assert rows.row(number)["id"] == f"r{number}"
        assert rows.row(number)["images"] == [{"bytes": PICTURE + bytes([number % 251]), "path": None}]
    assert [values["id"] for values in rows.metadata()] == [f"r{number}" for number in range(700)]
    assert {tuple(values["image_bytes"]) for values in rows.metadata()} == {(20_001,)}


def test_pictures_are_not_held(tmp_path):
    rows = MappedRows(shard(tmp_path / "a.parquet", 700), tmp_path / "cache")  # 14 MB
    before = pa.total_allocated_bytes()
    held = [rows.row(number) for number in range(0, 700, 7)]
    assert len(list(rows.metadata())) == 700 and len(held) == 100
    assert pa.total_allocated_bytes() - before < 100_000


def test_making_the_copy_holds_no_more_for_a_row_group_as_large_as_its_file(tmp_path):
    """Pages are what is held: 64 rows of 20 kB each here, 1.3 MB; the row group has 60 MB."""
    file = shard(tmp_path / "a.parquet", 3000, row_group=3000, write_batch_size=64, use_dictionary=False)
    code = (
        "import sys, pyarrow, pathlib; from mixed_r1_ray.data.mapped import MappedRows; "
        "MappedRows(*map(pathlib.Path, sys.argv[1:])); print(pyarrow.default_memory_pool().max_memory())"
    )
    words = [sys.executable, "-c", code, str(file), str(tmp_path / "cache")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 25e6


def test_the_copy_is_made_once(tmp_path):
    file = shard(tmp_path / "a.parquet", 10)
    MappedRows(file, tmp_path / "cache")
    (copy,) = copies(tmp_path / "cache")
    made = copy.stat().st_mtime_ns
    MappedRows(file, tmp_path / "cache")
    assert copies(tmp_path / "cache") == [copy] and copy.stat().st_mtime_ns == made


def test_another_file_of_the_same_name_or_in_the_same_place_has_a_copy_of_its_own(tmp_path):
    (tmp_path / "one").mkdir(), (tmp_path / "two").mkdir()
    cache = tmp_path / "cache"
    one = MappedRows(shard(tmp_path / "one" / "a.parquet", 10), cache)
    assert len(MappedRows(shard(tmp_path / "two" / "a.parquet", 20), cache)) == 20
    assert len(MappedRows(shard(tmp_path / "one" / "a.parquet", 30), cache)) == 30
    assert len(one) == 10 and one.row(9)["id"] == "r9"  # it was replaced while it is read
    assert len(copies(cache)) == 3


def _open_and_read(file: Path, cache: Path, number: int, barrier, answers) -> None:
    written = []
    write, mapped._write = mapped._write, lambda *places: (written.append(places), write(*places))
    barrier.wait(60)
    rows = MappedRows(file, cache)
    answers.put((len(written), rows.row(number)["id"]))


def test_of_several_processes_that_ask_at_once_one_makes_the_copy_and_all_read_it(tmp_path):
    file, context = shard(tmp_path / "a.parquet", 2000), multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(4), context.Queue()
    processes = [
        context.Process(target=_open_and_read, args=(file, tmp_path / "cache", number, barrier, answers))
        for number in range(4)
    ]
    for process in processes:
        process.start()
    found = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert sorted(name for _, name in found) == ["r0", "r1", "r2", "r3"]
    assert sum(made for made, _ in found) == 1
    assert len(copies(tmp_path / "cache")) == 1


def test_a_spoilt_copy_is_made_anew(tmp_path):
    file = shard(tmp_path / "a.parquet", 10)
    MappedRows(file, tmp_path / "cache")
    (copy,) = copies(tmp_path / "cache")
    copy.write_bytes(copy.read_bytes()[:-100])
    assert MappedRows(file, tmp_path / "cache").row(9)["id"] == "r9"


def test_what_a_kill_left_half_written_is_not_read(tmp_path, monkeypatch):
    file, cache = shard(tmp_path / "a.parquet", 600), tmp_path / "cache"

    class Killed(BaseException):
        pass

    def killed(*arguments):
        yield next(batches(*arguments))
        raise Killed

    batches = mapped._batches
    with monkeypatch.context() as patch:
        patch.setattr(mapped, "_batches", killed)
        with pytest.raises(Killed):
            MappedRows(file, cache)
    assert copies(cache) == []
    assert len(MappedRows(file, cache)) == 600


def test_a_file_damaged_in_its_middle_is_named_with_the_row(tmp_path):
    file = shard(tmp_path / "a.parquet", 1000, row_group=100)
    metadata, content = pq.read_metadata(file), bytearray(file.read_bytes())
    names = [metadata.row_group(6).column(number).path_in_schema for number in range(metadata.num_columns)]
    start = metadata.row_group(6).column(names.index("question")).data_page_offset
    content[start : start + 60] = b"\xff" * 60
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.parquet: cannot be read on from row 512 .*cut short"):
        MappedRows(file, tmp_path / "cache")
    assert copies(tmp_path / "cache") == []


def test_a_cache_that_cannot_be_written_is_named_by_its_key(tmp_path):
    file = shard(tmp_path / "a.parquet", 10)
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match=rf"data\.cache_dir={tmp_path / 'cache'}: the Arrow copy of .*name another"):
        MappedRows(file, tmp_path / "cache")


def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    if not os.access("/dev/full", os.W_OK):
        pytest.skip("no /dev/full")
    file, cache = shard(tmp_path / "a.parquet", 600), tmp_path / "cache"
    cache.mkdir()
    opened = pa.OSFile
    try:
        mapped.pa.OSFile = lambda path, mode: opened("/dev/full", mode)
        with pytest.raises(UserError, match="No space left on device.*free some space"):
            MappedRows(file, cache)
    finally:
        mapped.pa.OSFile = opened
    assert copies(cache) == []


def test_a_record_file_without_rows_is_empty(tmp_path):
    write_records(tmp_path / "a.parquet", [])
    rows = MappedRows(tmp_path / "a.parquet", tmp_path / "cache")
    assert len(rows) == 0 and list(rows.metadata()) == []
