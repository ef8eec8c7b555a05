"""Any row of a Parquet file at once: the file is written down again as Arrow, and that copy is memory-mapped.

Parquet is read a row group at a time, so that one row of it costs hundreds. The copy, NAME-HASH.arrow, is not
compressed: a row is where its offsets say, every process of a node shares the pages that are in memory, and the
kernel takes them back when memory is short. (Choice: pyarrow alone. `datasets` keeps such copies too, but holds
whole row groups while it makes them and says of a damaged file no more than that it is damaged.)
"""

from __future__ import annotations

import fcntl
import itertools
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mixed_r1_ray.data.schema import REQUIRED, SCHEMA
from mixed_r1_ray.data.shards import DISK_FULL, fingerprint
from mixed_r1_ray.errors import UserError

BATCH_ROWS = 256
READ_BYTES = 1 << 20  # of a column, at once: a row group, which pre_buffer would read whole, may be all of its file
LAYOUT = 1  # of the copy; older ones are not read


class MappedRows:
    """The rows of one Parquet file of records. Columns have the types of the schema; others are left out."""

    def __init__(self, file: Path, cache_dir: Path):
        self.name = file.name
        self._reader = _open(file, cache_dir)
        batches = range(self._reader.num_record_batches)
        self._starts = np.cumsum([0, *(self._reader.get_batch(number).num_rows for number in batches)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def row(self, number: int) -> dict:
        """One row, pictures included; only its own bytes are read."""
        batch = int(np.searchsorted(self._starts, number, side="right")) - 1
        (values,) = self._reader.get_batch(batch).slice(number - int(self._starts[batch]), 1).to_pylist()
        return values

    def metadata(self) -> Iterator[dict | None]:
        """All rows, with the lengths of their pictures as `image_bytes` instead of the pictures.

        None stands for a row whose text is not UTF-8.
        """
        for number in range(self._reader.num_record_batches):
            batch = self._reader.get_batch(number)
            images = batch.column("images")
            lengths = iter(pc.fill_null(pc.binary_length(pc.struct_field(images.flatten(), "bytes")), 0).to_pylist())
            counts = pc.list_value_length(images).to_pylist()
            for values, count in zip(_values(batch.drop_columns(["images"])), counts, strict=True):
                num_bytes = None if count is None else list(itertools.islice(lengths, count))
                yield None if values is None else values | {"image_bytes": num_bytes}


def _values(batch: pa.RecordBatch) -> list[dict | None]:
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [None]
        return [values for row in range(batch.num_rows) for values in _values(batch.slice(row, 1))]


def _open(file: Path, cache_dir: Path) -> pa.ipc.RecordBatchFileReader:
    """The copy of `file`, made first where there is none. Several processes may ask at once: one makes it."""
    try:
        status = file.stat()
        made_of = fingerprint(LAYOUT, str(file.resolve()), status.st_size, status.st_mtime_ns)
        copy = cache_dir / f"{file.stem[:80]}-{made_of}.arrow"
        if (reader := _mapped(copy)) is None:
            cache_dir.mkdir(parents=True, exist_ok=True)
            with _lock(copy.with_suffix(".lock")):
                if (reader := _mapped(copy)) is None:
                    _write(file, copy)
                    reader = _mapped(copy)
    except OSError as error:
        advice = "free some space, or name another folder" if error.errno in DISK_FULL else "name another folder"
        raise UserError(
            f"data.cache_dir={cache_dir}: the Arrow copy of {file} cannot be written ({error.strerror or error}); {advice}"
        ) from error
    return reader


def _mapped(copy: Path) -> pa.ipc.RecordBatchFileReader | None:
    try:
        return pa.ipc.open_file(pa.memory_map(str(copy)))
    except (FileNotFoundError, pa.ArrowInvalid):  # not there, or spoilt by others: it is made again
        return None


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Held by one process at a time, and let go when it ends, however it ends."""
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks: each makes its own copy, and the last one renamed stays
        yield


def _write(file: Path, copy: Path) -> None:
    temporary = copy.with_name(f".{copy.name}.{uuid.uuid4().hex}.tmp")
    try:
        with _parquet(file) as parquet:
            schema = _schema(file, parquet.schema_arrow)
            with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
                for batch in _batches(file, parquet, schema):
                    writer.write_batch(batch)
        temporary.replace(copy)
    finally:
        temporary.unlink(missing_ok=True)


def _batches(file: Path, parquet: pq.ParquetFile, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The file's rows in the types of `schema`. Raises UserError naming file and row."""
    row = 0
    batches = parquet.iter_batches(BATCH_ROWS, columns=schema.names)
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowException, OSError) as error:
            said = " ".join(str(error).split())
            raise UserError(f"{file}: cannot be read on from row {row} ({said}); is it cut short?") from error
        if batch is None:
            return
        try:
            table = pa.Table.from_batches([batch]).select(schema.names).cast(schema)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            last = row + batch.num_rows - 1
            raise UserError(f"{file}: rows {row} to {last} do not fit the record schema ({error})") from error
        yield from table.to_batches()
        row += batch.num_rows


def _parquet(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file, buffer_size=READ_BYTES, pre_buffer=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{file}: is not a readable Parquet file ({error})") from error


def _schema(file: Path, found: pa.Schema) -> pa.Schema:
    """The record schema as far as the file has its columns. Raises UserError for missing columns and other types."""
    missing = [name for name in REQUIRED if name not in found.names]
    if missing:
        raise UserError(f"{file}: misses the column(s) {', '.join(missing)}; it has {', '.join(found.names)}")
    schema = pa.schema([field.with_nullable(True) for field in SCHEMA if field.name in found.names])
    for field in schema:
        try:
            pa.nulls(0, found.field(field.name).type).cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UserError(
                f"{file}: a column has another type than the record schema: {field.name} is "
                f"{found.field(field.name).type}, not {field.type} ({error})"
            ) from error
    return schema
