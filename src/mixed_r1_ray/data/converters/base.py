"""What a converter is: where a dataset's rows are, and what each row asks, answers and shows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

# A picture: its bytes, or the places beneath the picture folder where it may lie, the likeliest first.
Picture = bytes | tuple[str, ...]


class Skip(ValueError):
    """A row that makes no record, and why. Rows are counted by reason; detail is what differs."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason)
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a dataset as it was found. `key` tells it from all others of its split."""

    file: str
    number: int
    key: str
    values: dict

    def __str__(self) -> str:
        return f"{self.file}, row {self.number}"


@dataclass(frozen=True, slots=True)
class Example:
    """What one record will hold. `key` is the row's own unless it makes several records."""

    images: tuple[Picture, ...]
    question: str
    answer: str
    choices: tuple[str, ...] | None = None
    key: str = ""
    source: str = ""  # the converter's name where empty
    reward_type: str = ""  # the converter's where empty
    meta: dict = field(default_factory=dict)


class Converter(ABC):
    """One public dataset. A subclass names its layouts and their documentation in its docstring.

    A dataset has up to two layouts. `native_rows` reads its original files; without them, Parquet or Arrow
    files as on the hub are read, and `columns` are those that `examples` needs of them. Rows of both reach
    `examples` under the same names.
    """

    name: ClassVar[str]
    reward_type: ClassVar[str]
    homepage: ClassVar[str]
    native_files: ClassVar[str]  # what `native_rows` looks for, in words
    columns: ClassVar[tuple[str, ...]] = ()

    def label(self) -> str:
        """What its shards' names begin with; it must be one for each dataset that shares a folder."""
        return self.name

    def native_rows(self, folder: Path, split: str) -> Iterator[Row] | None:
        """The rows of the original files, or None where these are not in `folder`."""
        return None

    @abstractmethod
    def examples(self, row: Row) -> Iterable[Example]:
        """The records that a row makes. Raises Skip, or KeyError where the row misses a field."""


def first_file(folder: Path, *names: str) -> Path | None:
    """The first of `names` that is a file beneath `folder`."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def picture_of(value: dict | bytes | str | tuple[str, ...] | None) -> Picture:
    """A cell of the hub's Image type, {bytes, path}, a bare path, or places where it may lie. Raises Skip for
    none.
    """
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if not value:
        raise Skip("has no picture")
    return (value,) if isinstance(value, str) else value


def coco_places(file_name: str, *folders: str) -> tuple[str, ...]:
    """Where a COCO picture may lie: in `folders` (train2017, ...), as they are or in images/ or coco/, or
    bare.
    """
    places = [f"{parent}{folder}/{file_name}" for folder in folders for parent in ("", "images/", "coco/")]
    return (*places, f"images/{file_name}", file_name)
