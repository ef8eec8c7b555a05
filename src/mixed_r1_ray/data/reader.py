"""Reads record files and says which rows can be used. Rows that cannot are named, counted and left out."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mixed_r1_ray.data.schema import SCHEMA, Record
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.rewards import GoldError, validate_gold
from mixed_r1_ray.types import MAX_PICTURES, REWARD_TYPES

REQUIRED = ("id", "source", "reward_type", "images", "question", "answer")

OPTIONAL = {"choices": None, "image_sizes": [], "meta": "{}"}


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be trained on."""

    file: str
    row: int
    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, row {self.row}, {self.field}: {self.reason}"


@dataclass(frozen=True, slots=True)
class RowInfo:
    """What batch planning needs of a usable row."""

    record_id: str
    source: str
    reward_type: str


class RecordTable:
    """The usable rows of a Parquet file or a folder of shards. Pictures are read row by row, when asked for."""

    def __init__(self, path: str, max_bad_fraction: float):
        self.path = path
        self.tables = [(file.name, _read(file)) for file in record_files(path)]
        self.bad_rows: list[BadRow] = []
        self.rows: list[RowInfo] = []
        self._location: list[tuple[int, int]] = []
        self._index()
        total = len(self.rows) + len(self.bad_rows)
        if total == 0:
            raise UserError(f"{path}: holds no rows")
        check_bad_fraction(path, self.bad_rows, total, max_bad_fraction)

    def record(self, index: int) -> Record:
        """The usable row number `index`, pictures included."""
        shard, row = self._location[index]
        (values,) = self.tables[shard][1].slice(row, 1).to_pylist()
        return Record.from_row(OPTIONAL | {name: value for name, value in values.items() if value is not None})

    def where(self, index: int) -> tuple[str, int]:
        """File name and row number of the usable row number `index`."""
        shard, row = self._location[index]
        return self.tables[shard][0], row

    def _index(self) -> None:
        seen: set[str] = set()
        for shard, (file, table) in enumerate(self.tables):
            for row, values in enumerate(_metadata(table)):
                fault = find_fault(values, seen)
                if fault is not None:
                    self.bad_rows.append(BadRow(file, row, *fault))
                    continue
                seen.add(values["id"])
                self.rows.append(RowInfo(values["id"], values["source"], values["reward_type"]))
                self._location.append((shard, row))


def find_fault(values: dict, seen_ids: set[str]) -> tuple[str, str] | None:
    """(field, reason) of the first fault of a row, or None. Its pictures stand in `image_bytes`, by their length."""
    for field in ("id", "source", "question", "answer"):
        if not (values[field] or "").strip():
            return field, "is empty"
    if values["id"] in seen_ids:
        return "id", f"{values['id']!r} stands for an earlier row too"
    if values["reward_type"] not in REWARD_TYPES:
        return "reward_type", f"{values['reward_type']!r} is none of {', '.join(REWARD_TYPES)}"
    if fault := _find_picture_fault(values["image_bytes"], values.get("image_sizes") or []):
        return fault
    if None in (values.get("choices") or []):
        return "choices", "holds a null"
    size = values["image_sizes"][0] if values.get("image_sizes") else None
    try:
        validate_gold(
            values["reward_type"],
            values["answer"],
            choices=values.get("choices"),
            image_size=None if size is None else (size["width"], size["height"]),
        )
    except GoldError as error:
        return "answer", str(error)
    try:
        meta = json.loads(values.get("meta") or "{}")
    except ValueError as error:
        return "meta", f"is not JSON ({error})"
    return None if isinstance(meta, dict) else ("meta", "is not a JSON object")


def _find_picture_fault(lengths: list[int] | None, sizes: list[dict | None]) -> tuple[str, str] | None:
    if lengths is None:
        return "images", "is null; an empty list stands for no picture"
    if 0 in lengths:
        return "images", f"picture {lengths.index(0)} holds no bytes; a path beside it is not followed"
    if len(lengths) > MAX_PICTURES:
        return "images", f"holds {len(lengths)} pictures; the most is {MAX_PICTURES}"
    if sizes and len(sizes) != len(lengths):
        return "image_sizes", f"has {len(sizes)} entries for {len(lengths)} pictures"
    if any(size is None or not size["width"] or not size["height"] or min(size.values()) < 0 for size in sizes):
        return "image_sizes", f"{sizes} are no sizes in pixels"
    return None


def check_bad_fraction(path: str, bad_rows: Sequence[BadRow], total: int, allowed: float) -> None:
    """Raises UserError, with examples and counts by field, where more than `allowed` of `total` rows, or all, are bad."""
    if len(bad_rows) <= allowed * total and len(bad_rows) < total:
        return
    examples = "\n".join(f"  {bad}" for bad in bad_rows[:5])
    counts = ", ".join(f"{field} {count}" for field, count in Counter(bad.field for bad in bad_rows).most_common())
    raise UserError(
        f"{path}: {len(bad_rows)} of {total} rows cannot be used ({len(bad_rows) / total:.1%}; data.max_bad_fraction "
        f"allows {allowed:.1%}). By field: {counts}. First ones:\n{examples}"
    )


def record_files(path: str) -> list[Path]:
    """The Parquet files at `path`, in order. Raises UserError where there is none."""
    place = Path(path)
    if not place.exists():
        raise UserError(f"{path}: there is no such file or folder of Parquet files")
    files = [place] if place.is_file() else sorted(place.glob("*.parquet"))
    if not files:
        raise UserError(f"{path}: the folder holds no *.parquet file")
    return files


def _read(file: Path) -> pa.Table:
    try:
        table = pq.read_table(file, memory_map=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{file}: is not a readable Parquet file ({error})") from error
    missing = [name for name in REQUIRED if name not in table.column_names]
    if missing:
        raise UserError(f"{file}: misses the column(s) {', '.join(missing)}; it has {', '.join(table.column_names)}")
    try:
        present = [field.with_nullable(True) for field in SCHEMA if field.name in table.column_names]
        return table.select([field.name for field in present]).cast(pa.schema(present))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(f"{file}: a column has another type than the record schema ({error})") from error


def _metadata(table: pa.Table) -> Iterator[dict]:
    """Rows a batch at a time, with the lengths of their pictures as `image_bytes` instead of the pictures."""
    for batch in table.to_batches(max_chunksize=4096):
        images = batch.column("images")
        lengths = iter(pc.fill_null(pc.binary_length(pc.struct_field(images.flatten(), "bytes")), 0).to_pylist())
        counts = pc.list_value_length(images).to_pylist()
        for values, count in zip(batch.drop_columns(["images"]).to_pylist(), counts, strict=True):
            yield values | {"image_bytes": None if count is None else list(itertools.islice(lengths, count))}
