"""Reads record files and says which rows can be used. Rows that cannot are named, counted and left out."""

from __future__ import annotations

import json
import math
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from mixed_r1_ray.data.mapped import MappedRows
from mixed_r1_ray.data.schema import OPTIONAL, Record, pass_rate
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.rewards import GoldError, validate_gold
from mixed_r1_ray.types import MAX_PICTURES, REWARD_TYPES


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
class UsableRows:
    """What planning batches needs of a split's N usable rows, a column each: 24 bytes a row."""

    file: np.ndarray  # int32 (N,), a place in the list of files
    row: np.ndarray  # int64 (N,)
    reward_type: np.ndarray  # int32 (N,), a place in `reward_types`
    source: np.ndarray  # int32 (N,), a place in `sources`
    pass_rate: np.ndarray  # float32 (N,), NaN where there is none
    reward_types: tuple[str, ...]
    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.row)

    def place(self, index: int) -> tuple[int, int]:
        """File and row number of the usable row number `index`."""
        return int(self.file[index]), int(self.row[index])


class RecordTable:
    """The usable rows of a Parquet file or a folder of shards.

    Opening it makes an Arrow copy of each file in `cache_dir`, unless it is there (`data/mapped.py`); rows are
    looked at when `rows` or `bad_rows` is first asked for.
    """

    def __init__(self, path: str, max_bad_fraction: float, cache_dir: str | Path):
        self.path = path
        self.max_bad_fraction = max_bad_fraction
        self.files = [MappedRows(file, Path(cache_dir) / "records") for file in record_files(path)]

    @property
    def rows(self) -> UsableRows:
        return self._index[0]

    @property
    def bad_rows(self) -> list[BadRow]:
        return self._index[1]

    def record(self, index: int) -> Record:
        """The usable row number `index`, pictures included."""
        return self.record_at(*self.rows.place(index))

    def record_at(self, file: int, row: int) -> Record:
        """A row that is known to be usable, by its place."""
        values = self.files[file].row(row)
        return Record.from_row(OPTIONAL | {name: value for name, value in values.items() if value is not None})

    def where(self, index: int) -> tuple[str, int]:
        """File name and row number of the usable row number `index`."""
        file, row = self.rows.place(index)
        return self.files[file].name, row

    def first_pictures(self, ids: Sequence[str]) -> dict[str, bytes]:
        """The first picture of each of these records as its file holds it; records without one are left out."""
        wanted, found = set(ids), {}
        for number, file in enumerate(self.files):
            for row, values in enumerate(file.metadata()):
                if values is not None and values["id"] in wanted and values["image_bytes"]:
                    wanted.discard(values["id"])
                    found[values["id"]] = self.record_at(number, row).images[0]
        return found

    @cached_property
    def _index(self) -> tuple[UsableRows, list[BadRow]]:
        columns, bad_rows, seen_ids = _Columns(), [], set()
        for number, file in enumerate(self.files):
            for row, values in enumerate(file.metadata()):
                fault = ("text", "is not UTF-8") if values is None else find_fault(values, seen_ids)
                if fault is None:
                    seen_ids.add(values["id"])
                    columns.add(number, row, values)
                else:
                    bad_rows.append(BadRow(file.name, row, *fault))
        rows = columns.finish()
        total = len(rows) + len(bad_rows)
        if total == 0:
            raise UserError(f"{self.path}: holds no rows")
        check_bad_fraction(self.path, bad_rows, total, self.max_bad_fraction)
        return rows, bad_rows


class _Columns:
    """`UsableRows` in the making."""

    def __init__(self):
        self.file, self.row, self.pass_rate = array("i"), array("q"), array("f")
        self.reward_type, self.source = array("i"), array("i")
        self.reward_types: dict[str, int] = {}
        self.sources: dict[str, int] = {}

    def add(self, file: int, row: int, values: dict) -> None:
        rate = pass_rate(values.get("meta"))
        self.file.append(file)
        self.row.append(row)
        self.pass_rate.append(math.nan if rate is None else rate)
        self.reward_type.append(self.reward_types.setdefault(values["reward_type"], len(self.reward_types)))
        self.source.append(self.sources.setdefault(values["source"], len(self.sources)))

    def finish(self) -> UsableRows:
        arrays = self.file, self.row, self.reward_type, self.source, self.pass_rate
        return UsableRows(*map(np.array, arrays), tuple(self.reward_types), tuple(self.sources))


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
