"""Checks records of one part of a file, pictures included, and keeps those without fault."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mixed_r1_ray.data.giveaway import find_giveaway
from mixed_r1_ray.data.images import ImageError, decode_image
from mixed_r1_ray.data.prompt_length import PromptLengths, Sizes
from mixed_r1_ray.data.reader import find_fault
from mixed_r1_ray.data.schema import OPTIONAL, SCHEMA, Record
from mixed_r1_ray.rewards import GoldError, validate_gold

MIN_SIDE = 8  # pixels: less shows nothing (choice)
BATCH = 64  # rows with pictures in memory at once
READ_BYTES = 2**20  # of a column, at once: a row group may be as large as its file


@dataclass(frozen=True, slots=True)
class RecordPart:
    """Row groups `first` to `last` of a file of records; its rows begin with number `row`."""

    file: Path
    first: int
    last: int
    row: int
    num_rows: int


@dataclass(frozen=True, slots=True)
class Fault:
    """A record that cannot be used. row None: a whole file; num_rows: how many it costs, where known."""

    file: str
    row: int | None
    id: str
    source: str
    field: str
    reason: str
    num_rows: int = 1


@dataclass(frozen=True, slots=True)
class Checked:
    """A row: its record where it is good, else its fault."""

    source: str
    record: Record | None
    fault: Fault | None


def check_rows(
    part: RecordPart, duplicates: Mapping[int, str], lengths: PromptLengths | None
) -> Iterator[Checked]:
    """Every row of a part, in order. duplicates: row number -> where its id stood first.

    What cannot be read of the file is one fault over all rows that it costs; what was read before it stays.
    """
    row = part.row
    try:
        for values in _rows(part):
            yield _checked(part.file.name, row, values, duplicates.get(row), lengths)
            row += 1
    except (pa.ArrowException, OSError) as error:
        lost = part.row + part.num_rows - row
        reason = f"cannot be read from here on ({error}); {lost} rows are lost"
        yield Checked("", None, Fault(part.file.name, row, "", "", "file", reason, lost))


def _checked(file: str, row: int, values: dict | None, first_at: str | None, lengths) -> Checked:
    if values is None:
        return Checked("", None, Fault(file, row, "", "", "text", "is not UTF-8"))
    source = values.get("source") or ""
    try:
        if first_at:
            raise _Faulty("id", f"{values['id']!r} stands in {first_at} too")
        _check_text(values)
        sizes = _check_pictures(values)
        _check_gold(values, sizes)
        if lengths is not None and (fault := lengths.find_fault(values["question"], sizes)):
            raise _Faulty(*fault)
    except _Faulty as faulty:
        return Checked(source, None, Fault(file, row, values.get("id") or "", source, *faulty.args))
    return Checked(source, _record(values, sizes), None)


class _Faulty(Exception):
    """Arguments: field, reason."""


def _check_text(values: dict) -> None:
    """All that can be said without decoding a picture: the trainer's own rules, and stricter ones of ours."""
    images = values["images"]
    num_bytes = None if images is None else [len((image or {}).get("bytes") or b"") for image in images]
    if fault := find_fault(values | {"image_bytes": num_bytes}, set()):
        raise _Faulty(*fault)
    try:
        json.loads(values.get("meta") or "{}", parse_constant=_refuse_constant)
    except ValueError as error:
        raise _Faulty("meta", str(error)) from None
    how = find_giveaway(values["reward_type"], values["question"], values["answer"], values.get("choices"))
    if how:
        raise _Faulty("question", f"gives its answer away: {how}")


def _check_pictures(values: dict) -> Sizes:
    """(width, height) of the pictures as they are decoded."""
    sizes = []
    for number, image in enumerate(values["images"]):
        try:
            height, width, _ = decode_image(image["bytes"]).shape
        except ImageError as error:
            raise _Faulty("images", f"picture {number} {error}") from None
        if min(width, height) < MIN_SIDE:
            raise _Faulty(
                "images", f"picture {number} has {width}x{height} pixels; {MIN_SIDE} a side are the least"
            )
        sizes.append((width, height))
    stated = [(size["width"], size["height"]) for size in values.get("image_sizes") or []]
    if stated and stated != sizes:
        raise _Faulty("image_sizes", f"says {stated}, the pictures have {sizes}")
    return tuple(sizes)


def _check_gold(values: dict, sizes: Sizes) -> None:
    """Boxes against pictures whose sizes were not stated; `find_fault` has seen all other golds."""
    if values["reward_type"] != "iou":
        return
    if not sizes:
        raise _Faulty("images", "is empty: a box is in no picture")
    try:
        validate_gold("iou", values["answer"], image_size=sizes[0])
    except GoldError as error:
        raise _Faulty("answer", str(error)) from None


def _record(values: dict, sizes: Sizes) -> Record:
    present = {name: value for name, value in values.items() if value is not None}
    measured = [{"width": width, "height": height} for width, height in sizes]
    return Record.from_row(OPTIONAL | present | {"image_sizes": measured})


def _refuse_constant(name: str) -> None:
    raise ValueError(f"holds {name}, which is not JSON")


def _rows(part: RecordPart) -> Iterator[dict | None]:
    """The rows in the types of the schema; None for one whose text is not UTF-8."""
    with pq.ParquetFile(part.file, buffer_size=READ_BYTES, pre_buffer=False) as table:
        fields = [field.with_nullable(True) for field in SCHEMA if field.name in table.schema_arrow.names]
        names = [field.name for field in fields]
        for batch in table.iter_batches(BATCH, row_groups=range(part.first, part.last), columns=names):
            typed = pa.Table.from_batches([batch]).select(names).cast(pa.schema(fields))
            try:
                yield from typed.to_pylist()
            except UnicodeDecodeError:
                yield from (_one_row(typed.slice(number, 1)) for number in range(typed.num_rows))


def _one_row(table: pa.Table) -> dict | None:
    try:
        return table.to_pylist()[0]
    except UnicodeDecodeError:
        return None
