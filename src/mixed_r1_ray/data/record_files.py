"""Files of records read a batch at a time: never a whole file, and pictures only when they are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mixed_r1_ray.data.reader import record_files
from mixed_r1_ray.data.schema import OPTIONAL, REQUIRED, SCHEMA
from mixed_r1_ray.errors import UserError

BATCH_ROWS = 256
READ_BYTES = 1 << 20  # a column of a row group is read in pieces of this size; pre_buffer would read all of it


@dataclass(frozen=True, slots=True)
class InputFile:
    """A Parquet file of records. `digest` is of its footer: counts, sizes and statistics of its columns."""

    path: Path
    digest: str
    columns: tuple[str, ...]
    row_groups: tuple[int, ...]  # rows of each

    @property
    def num_rows(self) -> int:
        return sum(self.row_groups)


def open_files(places: Sequence[str | Path]) -> list[InputFile]:
    """The record files in all `places`, in an order that does not depend on names: that of their digests."""
    paths = dict.fromkeys(path.resolve() for place in places for path in record_files(str(place)))
    return sorted((_open(path) for path in paths), key=lambda file: (file.digest, file.path))


def read_batches(
    file: InputFile, columns: Sequence[str], rows: np.ndarray | None = None, batch_rows: int = BATCH_ROWS
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Batches of a file, each with the number of its first row.

    columns: as Parquet names them; those that the file lacks are left out.
    rows: rising row numbers; only these rows come, and row groups without any are not read.
    """
    present = [column for column in columns if column.split(".")[0] in file.columns]
    first = 0
    try:
        with pq.ParquetFile(file.path, buffer_size=READ_BYTES, pre_buffer=False) as parquet:
            for group, count in enumerate(file.row_groups):
                wanted = None if rows is None else rows[slice(*np.searchsorted(rows, (first, first + count)))]
                if wanted is None or len(wanted):
                    yield from _group_batches(parquet, group, first, present, wanted, batch_rows)
                first += count
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"{file.path}: cannot be read on from row {first} ({error}); is it cut short?"
        ) from error


def as_records(batch: pa.RecordBatch, file: InputFile) -> pa.Table:
    """The batch in the record schema: optional columns filled in, others dropped. Raises UserError."""
    columns = []
    for field in SCHEMA:
        nullable = pa.field(field.name, field.type)
        if field.name not in batch.schema.names:
            column = pa.array([OPTIONAL[field.name]] * batch.num_rows, field.type)
        else:
            column = batch.column(field.name)
            try:
                column = pa.table([column], names=[field.name]).cast(pa.schema([nullable])).column(0)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise UserError(f"{file.path}: column {field.name} is no {field.type} ({error})") from error
            if column.null_count and OPTIONAL.get(field.name) is not None:
                column = pc.coalesce(column, pa.scalar(OPTIONAL[field.name], field.type))
        if column.null_count and not field.nullable:
            raise UserError(
                f"{file.path}: column {field.name} holds nulls; `check --drop` leaves such rows out"
            )
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _open(path: Path) -> InputFile:
    try:
        metadata = pq.read_metadata(path)
        with open(path, "rb") as file:
            file.seek(-8, 2)
            length = int.from_bytes(file.read(4), "little")
            file.seek(-8 - length, 2)
            digest = hashlib.sha256(file.read()).hexdigest()
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: is not a readable Parquet file ({error})") from error
    columns = tuple(metadata.schema.to_arrow_schema().names)
    if missing := [name for name in REQUIRED if name not in columns]:
        raise UserError(f"{path}: misses the column(s) {', '.join(missing)}; it has {', '.join(columns)}")
    return InputFile(
        path, digest, columns, tuple(metadata.row_group(n).num_rows for n in range(metadata.num_row_groups))
    )


def _group_batches(
    parquet: pq.ParquetFile,
    group: int,
    first: int,
    columns: Sequence[str],
    wanted: np.ndarray | None,
    batch_rows: int,
) -> Iterator[tuple[int, pa.RecordBatch]]:
    for batch in parquet.iter_batches(batch_rows, row_groups=[group], columns=columns, use_threads=False):
        count = batch.num_rows
        if wanted is not None:
            inside = wanted[slice(*np.searchsorted(wanted, (first, first + count)))] - first
            batch = batch.take(pa.array(inside))
        if batch.num_rows:
            yield first, batch
        first += count
