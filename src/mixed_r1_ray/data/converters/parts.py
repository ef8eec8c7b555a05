"""Cuts a dataset into parts of about 2,000 rows; a part is what one task turns into one shard.

Rows of annotation files travel with their part, for they are small. Rows of Parquet and Arrow files hold
pictures: a part names its row groups, and the task reads them itself, a few rows at a time.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mixed_r1_ray.data.converters.base import Converter, Row
from mixed_r1_ray.data.shards import file_fingerprint, fingerprint
from mixed_r1_ray.errors import UserError

ROWS = 2000
BATCH = 64  # rows with pictures in memory at once
READ_BYTES = 2**20  # of a column, at once: on the hub a row group may hold a gigabyte
VALIDATION = {"val": ("val", "validation"), "validation": ("validation", "val")}


@dataclass(frozen=True, slots=True)
class AnnotationPart:
    """Rows that were read already."""

    annotations: tuple[Row, ...]

    def identity(self) -> str:
        """Changes when any of the rows does."""
        return fingerprint(*(json.dumps([row.key, row.values], default=repr) for row in self.annotations))

    def rows(self) -> Iterator[Row]:
        return iter(self.annotations)


@dataclass(frozen=True, slots=True)
class TablePart:
    """Row groups (Parquet) or record batches (Arrow) `first` to `last` of a file; its first row is `row`."""

    file: Path
    name: str
    first: int
    last: int
    row: int

    def identity(self) -> str:
        """Changes when the file does."""
        return fingerprint(file_fingerprint(self.file), self.first, self.last)

    def rows(self) -> Iterator[Row]:
        number = self.row
        with readable(self.file):
            for batch in self._batches():
                for values in batch.to_pylist():
                    yield Row(self.name, number, f"{self.file.stem}-{number:06d}", values)
                    number += 1

    def _batches(self) -> Iterator[pa.RecordBatch]:
        if self.file.suffix == ".arrow":
            for batch in itertools.islice(_arrow_batches(self.file), self.first, self.last):
                yield from (batch.slice(start, BATCH) for start in range(0, batch.num_rows, BATCH))
        else:
            with pq.ParquetFile(self.file, buffer_size=READ_BYTES, pre_buffer=False) as table:
                yield from table.iter_batches(BATCH, row_groups=range(self.first, self.last))


Part = AnnotationPart | TablePart


class readable:
    """Turns pyarrow's complaints about a file, in the block, into a UserError that names it."""

    def __init__(self, file: Path):
        self.file = file

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, pa.ArrowException | OSError) or isinstance(error, UnicodeDecodeError):
            raise UserError(
                f"{self.file}: cannot be read ({error}); it may be cut short, fetch it again"
            ) from error


def plan_parts(converter: Converter, folder: Path, split: str) -> Iterator[Part]:
    """The parts of a split, in order; the same for the same files. Raises UserError where there is nothing to
    read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder")
    rows = converter.native_rows(folder, split)
    if rows is not None:
        yield from _annotation_parts(converter, rows)
        return
    files = hub_files(folder, split, any_name=converter.name == "parquet")
    if not files or not (converter.columns or converter.name == "parquet"):
        raise UserError(
            f"{folder}: holds neither {converter.native_files.replace('SPLIT', split)} nor "
            f"{split}-*.parquet or {split}/*.arrow files of {converter.name}; "
            f"{converter.homepage} describes them"
        )
    for file in files:
        yield from _table_parts(converter, file, folder)


def hub_files(folder: Path, split: str, any_name: bool = False) -> list[Path]:
    """Parquet files SPLIT*.parquet at any depth, or Arrow files in SPLIT/, in order."""
    names = VALIDATION.get(split, (split,))
    begins = re.compile(rf"(?:{'|'.join(map(re.escape, names))})(?![A-Za-z0-9])")  # `test` is not `testA`
    files = [path for path in sorted(folder.rglob("*.parquet")) if not path.name.startswith(".")]
    chosen = [path for path in files if any_name or begins.match(path.name) or path.parent.name in names]
    return chosen or [path for path in sorted(folder.rglob("*.arrow")) if path.parent.name in names]


def _annotation_parts(converter: Converter, rows: Iterator[Row]) -> Iterator[AnnotationPart]:
    try:
        while chunk := tuple(itertools.islice(rows, ROWS)):
            yield AnnotationPart(chunk)
    except KeyError as error:
        raise UserError(
            f"{converter.native_files}: a row misses the field {error}; is this {converter.name}?"
        ) from error


def _table_parts(converter: Converter, file: Path, folder: Path) -> Iterator[TablePart]:
    with readable(file):
        if file.suffix == ".arrow":
            counts, present = [], []
            for batch in _arrow_batches(file):
                counts.append(batch.num_rows)
                present = batch.schema.names
        else:
            metadata = pq.read_metadata(file)
            counts = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
            present = pq.read_schema(file).names
    missing = [name for name in converter.columns if name not in present]
    if missing:
        raise UserError(
            f"{file}: misses the column(s) {', '.join(missing)} of {converter.name}; "
            f"it has {', '.join(present)}"
        )
    name = file.relative_to(folder).as_posix()
    first = row = held = 0
    for index, count in enumerate(counts):
        held += count
        if held >= ROWS or index == len(counts) - 1:
            yield TablePart(file, name, first, index + 1, row)
            first, row, held = index + 1, row + held, 0


def _arrow_batches(file: Path) -> Iterator[pa.RecordBatch]:
    """Record batches of what `save_to_disk` writes: the stream format, or the file format of other tools."""
    with pa.memory_map(str(file)) as source:
        try:
            reader = pa.ipc.open_stream(source)
        except pa.ArrowInvalid:
            reader = pa.ipc.open_file(source)
            yield from (reader.get_batch(index) for index in range(reader.num_record_batches))
            return
        yield from reader
