"""Parquet shards that are whole or not there, each with a marker that says what it was made of.

A shard is written under a temporary name and renamed; then its marker appears as `.done/NAME.json` in the
same folder. Who comes again with the same `made_of` finds the marker and need not write the shard again, so
that a killed run continues with the first shard that is not finished.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mixed_r1_ray.data.schema import SCHEMA, Record
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.runtime import atomic

ROW_GROUP_ROWS = 256
ROW_GROUP_BYTES = 32 * 2**20  # of pictures; a row group is what is held in memory
MARKERS = ".done"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Shard:
    """A finished shard. `details` is the maker's own: counts, what was skipped; JSON."""

    name: str
    made_of: str
    num_rows: int
    num_bytes: int
    sha256: str
    details: dict = field(default_factory=dict)


class ShardWriter:
    """Writes one shard, a row group at a time; use it as a context manager.

    Where the block ends well the shard and its marker are in place and `shard` describes them; where it
    raises nothing of it is left. Raises UserError where the disk is full or may not be written.
    """

    def __init__(self, path: Path, made_of: str, schema: pa.Schema = SCHEMA):
        self.path = path
        self.made_of = made_of
        self.schema = schema
        self.details: dict = {}
        self.num_rows = 0
        self.shard: Shard | None = None
        self._rows: list[dict] = []
        self._bytes = 0
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> ShardWriter:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _marker(self.path).unlink(missing_ok=True)  # else it would vouch for the former shard's successor
            self._writer = pq.ParquetWriter(self._temporary, self.schema)
        except OSError as error:
            raise _explained(error, self.path) from error
        return self

    def add(self, record: Record) -> None:
        """One more record; it reaches the disk with its row group."""
        self._rows.append(record.to_row())
        self._bytes += sum(map(len, record.images))
        if len(self._rows) >= ROW_GROUP_ROWS or self._bytes >= ROW_GROUP_BYTES:
            self._flush()

    def add_table(self, table: pa.Table) -> None:
        """Rows that are Arrow already, in the writer's schema; pictures never become Python objects."""
        self._flush()
        self._write(table.cast(self.schema))

    def __exit__(self, kind, error, trace) -> None:
        try:
            if kind is None:
                self._flush()
                self._writer.close()
                self.shard = self._finish()
            elif isinstance(error, OSError) and error.errno in DISK_FULL:  # others may be about the input
                raise _explained(error, self.path) from error
        except OSError as problem:
            raise _explained(problem, self.path) from problem
        finally:
            if self._writer.is_open:
                _close_quietly(self._writer)
            self._temporary.unlink(missing_ok=True)

    def _flush(self) -> None:
        if self._rows:
            rows, self._rows, self._bytes = self._rows, [], 0
            self._write(pa.Table.from_pylist(rows, schema=self.schema))

    def _write(self, table: pa.Table) -> None:
        self._writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        self.num_rows += table.num_rows

    def _finish(self) -> Shard:
        shard = Shard(
            self.path.name,
            self.made_of,
            self.num_rows,
            self._temporary.stat().st_size,
            hash_file(self._temporary),
            self.details,
        )
        atomic.flush_to_disk(self._temporary)
        os.replace(self._temporary, self.path)
        atomic.flush_to_disk(self.path.parent)
        atomic.write_text(_marker(self.path), json.dumps(asdict(shard), ensure_ascii=False, indent=1) + "\n")
        return shard


def finished_shard(path: Path, made_of: str | None = None) -> Shard | None:
    """The shard at `path` if it is whole, by marker and size, and was made of `made_of` (None: anything)."""
    try:
        shard = Shard(**json.loads(_marker(path).read_text(encoding="utf-8")))
        whole = path.stat().st_size == shard.num_bytes
    except (OSError, ValueError, TypeError):
        return None
    return shard if whole and made_of in (None, shard.made_of) else None


def finished_shards(folder: Path) -> list[Shard]:
    """All whole shards of a folder, by name."""
    shards = (finished_shard(path) for path in sorted(folder.glob("*.parquet")))
    return [shard for shard in shards if shard is not None]


def prepare_folder(folder: Path, names: Iterable[str], prefix: str = "") -> None:
    """Makes `folder` ready for shards of these names: removes half-written files and shards of an earlier
    plan.

    Only what carries a marker is removed. Raises UserError for a Parquet file that has none and is not
    planned: somebody else put it there. prefix: files whose names begin otherwise are somebody else's and
    left alone.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a folder to write to")
    planned = set(names)
    foreign = [path for path in sorted(folder.glob(f"{prefix}*.parquet")) if path.name not in planned]
    for path in foreign:
        if not _marker(path).exists():
            raise UserError(f"{path}: was not written by this command; name an empty folder to write to")
    for path in foreign:
        _marker(path).unlink()
        path.unlink()
    for leftover in (*folder.glob(f".{prefix}*.tmp"), *(folder / MARKERS).glob(f".{prefix}*.tmp")):
        leftover.unlink()


def fingerprint(*parts: object) -> str:
    """A short hash of values whose repr is stable: what `made_of` is filled with."""
    return hashlib.sha256("\0".join(map(repr, parts)).encode()).hexdigest()[:24]


def file_fingerprint(path: Path) -> tuple[str, int, int]:
    """Name, size and time of change: enough to see that an input file is another one."""
    status = path.stat()
    return path.name, status.st_size, status.st_mtime_ns


def hash_file(path: Path) -> str:
    """sha256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _marker(path: Path) -> Path:
    return path.parent / MARKERS / f"{path.name}.json"


def _close_quietly(writer: pq.ParquetWriter) -> None:
    try:
        writer.close()
    except OSError:
        pass  # the disk that refused the rows refuses the footer too; the file is removed either way


def _explained(error: OSError, path: Path) -> UserError:
    full = error.errno in DISK_FULL
    advice = (
        "free some space and run it again: what is finished is kept" if full else "nothing of it was written"
    )
    return UserError(f"{path}: cannot be written ({error.strerror or error}); {advice}")
