"""Parquet and JSON-lines files of responses, read and written a batch of rows at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.rewards.response_rows import OPTIONAL, REQUIRED, RowFault, check_columns
from mixed_r1_ray.runtime import atomic
from mixed_r1_ray.types import RewardBreakdown

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 10_000
DROPPED = "images"  # not needed and large: neither read nor written
SCORES = ("score_total", "score_task", "score_format", "score_detail")


@dataclass(frozen=True, slots=True)
class Scored:
    """What is written of a row: its samples' rewards, as lists where the responses were one."""

    breakdowns: tuple[RewardBreakdown, ...]
    is_list: bool

    def columns(self) -> dict[str, Any]:
        """SCORES → value, or list of values."""
        columns = {}
        for name in SCORES:
            values = [getattr(one, name.removeprefix("score_")) for one in self.breakdowns]
            columns[name] = values if self.is_list else values[0]
        return columns


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows as dicts, a RowFault for one that cannot be read; and what the writer needs to repeat them."""

    first: int  # number of the first row
    rows: list[dict[str, Any] | RowFault]
    raw: Any
    done: int  # of the file's `size`


def open_responses(path: Path, responses: str) -> ResponseFile:
    """Raises UserError for a file that is not there, not readable or lacks a column."""
    kinds = {".parquet": ParquetResponses, ".jsonl": JsonlResponses}
    if path.suffix not in kinds:
        raise UserError(f"{path}: expected a file ending in {' or '.join(kinds)}")
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    try:
        return kinds[path.suffix](path, responses)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


class ParquetResponses:
    """Rows are counted from 0, as the data reader counts them."""

    unit = "row"

    def __init__(self, path: Path, responses: str):
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        try:
            self._file = pq.ParquetFile(path)
        except pa.ArrowInvalid as error:
            raise UserError(f"{path}: is not a readable Parquet file ({error})") from error
        schema = self._file.schema_arrow.remove_metadata()
        check_columns(str(path), schema.names, responses)
        self._needed = [name for name in schema.names if name in (*REQUIRED, *OPTIONAL, responses)]
        kept = [field for field in schema if field.name not in (DROPPED, *SCORES)]
        number, text = pa.float64(), pa.string()
        self.is_list = _is_list(schema.field(responses).type)
        if self.is_list:
            number, text = pa.list_(number), pa.list_(text)
        scores = [pa.field(name, text if name == "score_detail" else number) for name in SCORES]
        self._kept, self._schema = [field.name for field in kept], pa.schema([*kept, *scores])
        self.size = self._file.metadata.num_rows

    def batches(self) -> Iterator[Batch]:
        import pyarrow as pa

        done = 0
        try:
            for raw in self._file.iter_batches(BATCH_ROWS, columns=self._kept):
                first, done = done, done + len(raw)
                yield Batch(first, raw.select(self._needed).to_pylist(), raw, done)
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{self.path}: cannot be read after row {done - 1} ({error})") from error

    @contextmanager
    def writer(self, path: Path) -> Iterator[_ParquetWriter]:
        """Writes `path`, whole or not at all."""
        import pyarrow.parquet as pq

        with atomic.replacing(path) as temporary, pq.ParquetWriter(temporary, self._schema) as file:
            yield _ParquetWriter(file, self._schema)


@dataclass(frozen=True, slots=True)
class _ParquetWriter:
    file: Any
    schema: pa.Schema

    def write(self, batch: Batch, scored: Sequence[Scored]) -> None:
        import pyarrow as pa

        columns = [batch.raw.column(name) for name in batch.raw.schema.names]
        values = [row.columns() for row in scored]
        columns += [
            pa.array([row[name] for row in values], type=self.schema.field(name).type) for name in SCORES
        ]
        self.file.write_batch(pa.record_batch(columns, schema=self.schema))


class JsonlResponses:
    """One JSON object a line. Lines are counted from 1, as editors count them."""

    unit = "line"
    is_list = False  # a line whose responses cannot be read is written as one text

    def __init__(self, path: Path, responses: str):
        self.path = path
        self.size = path.stat().st_size
        for _, line in self._lines():
            row = _parse(line)
            if not isinstance(row, RowFault):
                check_columns(str(path), row, responses)
                return
        raise UserError(f"{path}: holds no line that is a JSON object")

    def batches(self) -> Iterator[Batch]:
        raw: list[bytes] = []
        first, done = 1, 0
        for number, line in self._lines():
            raw.append(line)
            done += len(line)
            if len(raw) == BATCH_ROWS:
                yield Batch(first, [_parse(line) for line in raw], None, done)
                first, raw = number + 1, []
        if raw:
            yield Batch(first, [_parse(line) for line in raw], None, done)

    @contextmanager
    def writer(self, path: Path) -> Iterator[_JsonlWriter]:
        """Writes `path`, whole or not at all: one line for each of the file."""
        # half a surrogate pair is no UTF-8; what backslashreplace makes of it is JSON's own way to write it
        how = {"encoding": "utf-8", "errors": "backslashreplace"}
        with atomic.replacing(path) as temporary, temporary.open("w", **how) as file:
            yield _JsonlWriter(file)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with self.path.open("rb") as file:
            yield from enumerate(file, start=1)


@dataclass(frozen=True, slots=True)
class _JsonlWriter:
    file: Any

    def write(self, batch: Batch, scored: Sequence[Scored]) -> None:
        for row, score in zip(batch.rows, scored, strict=True):
            kept = {} if isinstance(row, RowFault) else {k: v for k, v in row.items() if k != DROPPED}
            self.file.write(json.dumps(kept | score.columns(), ensure_ascii=False) + "\n")


def _parse(line: bytes) -> dict[str, Any] | RowFault:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return RowFault("the line", f"is not JSON ({error.msg}, at character {error.pos})")
    except (ValueError, RecursionError) as error:  # no UTF-8, a number of many thousand digits, deep nesting
        return RowFault("the line", f"is not JSON ({error})")
    return row if isinstance(row, dict) else RowFault("the line", f"is {row!r:.40}, not a JSON object")


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


ResponseFile = ParquetResponses | JsonlResponses
