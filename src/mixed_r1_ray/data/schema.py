"""The record: one question about zero or more pictures, its gold answer, and how an answer to it is scored.

A row of Parquet that `datasets` reads as is; `images` has the hub's Image layout (bytes beside a path).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
SIZE = pa.struct([("width", pa.int32()), ("height", pa.int32())])
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("reward_type", pa.string(), nullable=False),  # one of types.REWARD_TYPES
        pa.field("images", pa.list_(IMAGE), nullable=False),
        pa.field("image_sizes", pa.list_(SIZE), nullable=False),
        pa.field("question", pa.string(), nullable=False),
        pa.field("choices", pa.list_(pa.string())),  # null unless multiple choice
        pa.field("answer", pa.string(), nullable=False),  # boxes: JSON in original pixels
        pa.field("meta", pa.string(), nullable=False),  # a JSON object
    ]
)

REQUIRED = ("id", "source", "reward_type", "images", "question", "answer")
OPTIONAL = {"choices": None, "image_sizes": [], "meta": "{}"}  # column -> what stands for it where it is missing


@dataclass(frozen=True, slots=True)
class Record:
    """One row. `images` are encoded (PNG, JPEG); `image_sizes` are (width, height) in their own pixels."""

    id: str
    source: str
    reward_type: str
    images: tuple[bytes, ...]
    image_sizes: tuple[tuple[int, int], ...]
    question: str
    answer: str
    choices: tuple[str, ...] | None = None
    meta: str = "{}"

    @classmethod
    def from_row(cls, row: dict) -> Record:
        """The inverse of `to_row`, for a row that is known to be right."""
        return cls(
            **{name: row[name] for name in ("id", "source", "reward_type", "question", "answer", "meta")},
            images=tuple(image["bytes"] for image in row["images"]),
            image_sizes=tuple((size["width"], size["height"]) for size in row["image_sizes"]),
            choices=None if row["choices"] is None else tuple(row["choices"]),
        )

    def to_row(self) -> dict:
        return asdict(self) | {
            "images": [{"bytes": image, "path": None} for image in self.images],
            "image_sizes": [{"width": width, "height": height} for width, height in self.image_sizes],
        }


def pass_rate(meta: str | None) -> float | None:
    """`pass_rate` of a record's `meta`, from 0 to 1; None where there is none."""
    if not meta or '"pass_rate"' not in meta:
        return None
    try:
        rate = json.loads(meta)["pass_rate"]
    except (ValueError, KeyError, TypeError):
        return None
    usable = isinstance(rate, (int, float)) and not isinstance(rate, bool) and 0 <= rate <= 1
    return float(rate) if usable else None


def write_records(path: str | Path, records: Iterable[Record]) -> None:
    """Writes a Parquet file in row groups of 256, under a temporary name until it is whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        table = pa.Table.from_pylist([record.to_row() for record in records], schema=SCHEMA)
        pq.write_table(table, unfinished, row_group_size=256)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
