"""People's own data: JSON lines or Parquet, whose columns are named on the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path

from mixed_r1_ray.data.converters.annotations import json_lines
from mixed_r1_ray.data.converters.base import Converter, Example, Row, Skip, picture_of
from mixed_r1_ray.data.converters.charts import chart_answer
from mixed_r1_ray.data.schema import Record
from mixed_r1_ray.errors import UserError

FIELDS = tuple(field.name for field in fields(Record) if field.name != "image_sizes")


class OwnData(Converter):
    """Rows of *.jsonl or *.parquet files of your own.

    mapping: record field -> column; a field that is not named has its column's name, `image` does for
    `images`. constants: record field -> value for all rows. images: a path beneath the picture folder,
    {bytes, path}, or a list of these. answer: text, number, or for boxes [x1, y1, x2, y2] (a list of them) in
    original pixels.
    """

    reward_type = ""
    homepage = "docs/data.md"

    def __init__(self, mapping: Mapping[str, str], constants: Mapping[str, str]):
        for name in (*mapping, *constants):
            if name not in FIELDS:
                raise UserError(f"{name}: is no field of a record; there are {', '.join(FIELDS)}")
        self.mapping = dict(mapping)
        self.constants = dict(constants)

    def label(self) -> str:
        return re.sub(r"\W", "_", self.constants.get("source", self.name))

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that every Parquet file must have."""
        return tuple(self.mapping.values())

    def examples(self, row: Row) -> Iterable[Example]:
        if "fault" in row.values:
            raise Skip(row.values["fault"])
        pictures = self._value(row, "images")
        if pictures is None:
            pictures = row.values.get("image")
        choices = self._value(row, "choices")
        question = str(self._needed(row, "question"))
        if choices and not all(str(choice) in question for choice in choices):
            listed = "\n".join(f"({chr(65 + place)}) {choice}" for place, choice in enumerate(choices))
            question = f"{question}\n{listed}"
        yield Example(
            images=tuple(picture_of(picture) for picture in _as_list(pictures)),
            question=question,
            answer=_answer(self._needed(row, "answer")),
            choices=tuple(map(str, choices)) if choices else None,
            key=str(self._value(row, "id") or ""),
            source=str(self._value(row, "source") or "own"),
            reward_type=str(self._needed(row, "reward_type")),
            meta=_meta(self._value(row, "meta")),
        )

    def _value(self, row: Row, name: str):
        return self.constants.get(name, row.values.get(self.mapping.get(name, name)))

    def _needed(self, row: Row, name: str):
        value = self._value(row, name)
        if value is None or value == "":
            raise Skip(f"has no {name} (column {self.mapping.get(name, name)!r})")
        return value


class OwnJsonLines(OwnData):
    """*.jsonl files, UTF-8, one object a line."""

    name = "jsonl"
    native_files = "*.jsonl"

    def native_rows(self, folder: Path, split: str) -> Iterator[Row] | None:
        paths = sorted(folder.glob("*.jsonl"))
        return self._rows(paths) if paths else None

    def _rows(self, paths: list[Path]) -> Iterator[Row]:
        for path in paths:
            for number, values in json_lines(path):
                key = f"{path.stem}-{number:06d}"
                yield Row(path.name, number, key, values if isinstance(values, dict) else {"fault": values})


class OwnParquet(OwnData):
    """*.parquet files, beneath the folder at any depth; whatever split they name."""

    name = "parquet"
    native_files = "*.parquet"


def _as_list(pictures) -> list:
    if pictures is None:
        return []
    return list(pictures) if isinstance(pictures, list | tuple) else [pictures]


def _answer(value) -> str:
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return chart_answer(value)


def _meta(value) -> dict:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise Skip("its meta is not JSON") from None
    if value is not None and not isinstance(value, dict):
        raise Skip("its meta is no JSON object")
    return value or {}
