"""Cuts files of records into parts to check, and finds ids that stand twice among them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mixed_r1_ray.data.record_check import Fault, RecordPart
from mixed_r1_ray.data.schema import REQUIRED, SCHEMA
from mixed_r1_ray.errors import UserError

PART_ROWS = 1000


def plan_check(files: Sequence[Path]) -> tuple[list[RecordPart], list[Fault]]:
    """Parts of about a thousand rows, and files that cannot be read at all."""
    parts, faults = [], []
    for file in files:
        try:
            counts = _row_groups(file)
        except (pa.ArrowException, OSError, UserError) as error:
            faults.append(Fault(file.name, None, "", "", "file", f"cannot be read ({error})", 0))
            continue
        first = row = held = 0
        for index, count in enumerate(counts):
            held += count
            if held >= PART_ROWS or index == len(counts) - 1:
                parts.append(RecordPart(file, first, index + 1, row, held))
                first, row, held = index + 1, row + held, 0
    if not parts:
        raise UserError(
            f"{files[0].parent}: holds no record that can be read. {faults[0].reason if faults else ''}"
        )
    return parts, faults


def _row_groups(file: Path) -> list[int]:
    """Rows of each row group. Raises UserError where columns are missing or of another type."""
    with pq.ParquetFile(file) as table:
        names = table.schema_arrow.names
        if missing := [name for name in REQUIRED if name not in names]:
            raise UserError(f"misses the column(s) {', '.join(missing)}; it has {', '.join(names)}")
        for expected in SCHEMA:
            if expected.name in names:
                found = table.schema_arrow.field(expected.name).type
                try:
                    pa.nulls(0, found).cast(expected.type)
                except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                    raise UserError(f"column {expected.name} is {found}, not {expected.type}") from None
        return [table.metadata.row_group(index).num_rows for index in range(table.num_row_groups)]


def find_duplicates(parts: Sequence[RecordPart]) -> dict[tuple[Path, int], str]:
    """(file, row) of each record whose id an earlier one has -> where that one is. Eight bytes a row are
    held.
    """
    digests, starts = [], [0]
    for part in parts:
        digests.append(_id_digests(part))
        starts.append(starts[-1] + len(digests[-1]))
    every = np.concatenate(digests)
    _, first, inverse = np.unique(every, return_index=True, return_inverse=True)
    earliest = first[inverse]
    again = np.flatnonzero(earliest != np.arange(len(every)))

    def place(position: int) -> tuple[Path, int]:
        index = int(np.searchsorted(starts, position, side="right")) - 1
        return parts[index].file, parts[index].row + position - starts[index]

    named = ((place(int(position)), place(int(earliest[position]))) for position in again)
    return {later: f"{file.name}, row {row}" for later, (file, row) in named}


def _id_digests(part: RecordPart) -> np.ndarray:
    """uint64 (rows,), a hash of each id; a null, or a row that cannot be read, gets one of its own."""
    digests: list[int] = []
    try:
        with pq.ParquetFile(part.file) as table:
            for batch in table.iter_batches(8192, row_groups=range(part.first, part.last), columns=["id"]):
                ids = batch.column(0).cast(pa.string()).cast(pa.binary()).to_pylist()
                digests += [_digest(value or f"{part.file}\0{part.row + len(digests) + place}".encode())
                            for place, value in enumerate(ids)]  # fmt: skip
    except (pa.ArrowException, OSError):
        pass  # the task that checks the part says so
    unread = range(part.row + len(digests), part.row + part.num_rows)
    return np.array([*digests, *(_digest(f"{part.file}\0{row}".encode()) for row in unread)], dtype=np.uint64)


def _digest(value: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(value, digest_size=8).digest(), "big")


def of_part(duplicates: dict[tuple[Path, int], str], part: RecordPart) -> dict[int, str]:
    rows = range(part.row, part.row + part.num_rows)
    return (
        {row: duplicates[part.file, row] for row in rows if (part.file, row) in duplicates}
        if duplicates
        else {}
    )
