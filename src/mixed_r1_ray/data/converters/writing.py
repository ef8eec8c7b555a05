"""Turns one part of a dataset into one shard of records: what a task of `convert` does."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mixed_r1_ray.data.converters.base import Converter, Example, Row, Skip
from mixed_r1_ray.data.converters.parts import Part
from mixed_r1_ray.data.converters.pictures import PictureFolder
from mixed_r1_ray.data.schema import Record
from mixed_r1_ray.data.shards import Shard, ShardWriter

EXAMPLES = 3  # rows named a reason


@dataclass(frozen=True, slots=True)
class Conversion:
    """What to convert, and to where. It travels with every task."""

    converter: Converter
    folder: Path
    images: Path
    out: Path
    split: str
    fraction: float

    @property
    def prefix(self) -> str:
        """What the names of its shards begin with."""
        return f"{self.converter.label()}-{self.split}-"


def write_part(conversion: Conversion, part: Part, number: int, made_of: str) -> tuple[int, Shard]:
    """The task: one part becomes one shard. Rows that make no record are counted by reason, the first ones
    named.
    """
    skipped: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    sources: Counter[str] = Counter()
    pictures = PictureFolder(conversion.images)
    with ShardWriter(conversion.out / shard_name(conversion, number), made_of) as writer:
        for row in part.rows():
            if not chosen(row, conversion.fraction):
                continue
            try:
                for record in records_of(row, conversion, pictures):
                    writer.add(record)
                    sources[record.source] += 1
            except Skip as reason:
                skipped[str(reason)] += 1
                if len(examples.setdefault(str(reason), [])) < EXAMPLES:
                    examples[str(reason)].append(f"{row} ({reason.detail})" if reason.detail else str(row))
        writer.details.update(sources=dict(sources), skipped=dict(skipped), examples=examples)
    return number, writer.shard


def records_of(row: Row, conversion: Conversion, pictures: PictureFolder) -> Iterator[Record]:
    """The records that a row makes, pictures included. Raises Skip."""
    try:
        examples = list(conversion.converter.examples(row))
    except KeyError as error:
        raise Skip(f"misses the field {error}") from None
    except (AttributeError, TypeError, IndexError) as error:
        raise Skip("has a field of another type than the layout says", str(error)) from None
    for example in examples:
        loaded = [pictures.load(picture) for picture in example.images]
        yield _record(example, row, conversion, loaded)


def _record(example: Example, row: Row, conversion: Conversion, loaded: list) -> Record:
    source = example.source or conversion.converter.name
    if not example.question.strip() or not example.answer.strip():
        raise Skip("its question or answer is empty")
    own_id = conversion.converter.name in ("jsonl", "parquet") and example.key
    return Record(
        id=example.key if own_id else f"{source}-{conversion.split}-{example.key or row.key}",
        source=source,
        reward_type=example.reward_type or conversion.converter.reward_type,
        images=tuple(data for data, _ in loaded),
        image_sizes=tuple(size for _, size in loaded),
        question=example.question,
        answer=example.answer,
        choices=example.choices,
        meta=json.dumps(
            {name: value for name, value in example.meta.items() if value is not None}, ensure_ascii=False
        ),
    )


def chosen(row: Row, fraction: float) -> bool:
    """Whether a row belongs to the share that is taken: by a hash of its key, so that it never depends on
    others.
    """
    if fraction >= 1:
        return True
    digest = hashlib.blake2b(f"{row.file}\0{row.key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < fraction * 2**64


def shard_name(conversion: Conversion, number: int) -> str:
    return f"{conversion.prefix}{number:05d}.parquet"
