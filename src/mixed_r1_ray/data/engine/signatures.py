"""Signatures of records: what comparing needs of each, made once a thousand rows by Ray tasks, and kept in shards."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from mixed_r1_ray.data import images, reader, record_files, schema
from mixed_r1_ray.data.engine import looks, texts
from mixed_r1_ray.data.engine.looks import COPY_BYTES, look_at
from mixed_r1_ray.data.engine.texts import normalised, normalised_answer
from mixed_r1_ray.data.images import ImageError, decode_image
from mixed_r1_ray.data.reader import find_fault
from mixed_r1_ray.data.record_files import InputFile, as_records, read_batches
from mixed_r1_ray.data.schema import SCHEMA, Record
from mixed_r1_ray.data.shards import ShardWriter, fingerprint, finished_shard, prepare_folder
from mixed_r1_ray.data.tasks import run_tasks

PART_ROWS = 1000
BATCH_ROWS = 64  # rows with pictures in memory at once
COPY = pa.binary(COPY_BYTES)
SIGNATURE = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("reward_type", pa.string()),
        ("question", pa.string()),  # normalised
        ("answer", pa.string()),  # likewise
        ("key", pa.uint64()),  # hash of the id
        ("content", pa.uint64()),  # hash of everything else that is text
        ("prompt", pa.uint64()),  # hash of pictures' bytes and normalised question
        ("asked", pa.uint64()),  # hash of the normalised question
        ("words", pa.int32()),  # of the normalised question
        ("answered", pa.uint64()),  # hash of the normalised answer
        ("pixels", pa.int64()),  # of all pictures
        ("digests", pa.list_(pa.uint64())),  # a hash of each picture's bytes
        ("phashes", pa.list_(pa.uint64())),
        ("copies", pa.list_(COPY)),
        ("fault", pa.string()),  # why it cannot be used; null: it can
    ]
)


@dataclass(frozen=True, slots=True)
class SignaturePart:
    """Rows `first` to `last` of a file, and the shard that holds their signatures."""

    file: InputFile
    first: int
    last: int
    shard: Path


def make_signatures(
    files: Sequence[InputFile], folder: Path, say: Callable[[int, int], None]
) -> list[SignaturePart]:
    """Writes the shards that are not finished yet, one Ray task each. Call it where Ray is connected.

    say: told of rows done and rows in all. Raises UserError for a file that cannot be read.
    """
    parts = [*_plan(files, folder)]
    prepare_folder(folder, [part.shard.name for part in parts])
    total, done = sum(part.last - part.first for part in parts), 0
    say(done, total)
    for rows in run_tasks(sign_part, ((part,) for part in parts), what="a task that looks at pictures"):
        done += rows
        say(done, total)
    return parts


def sign_part(part: SignaturePart) -> int:
    """The task: signatures of one part, unless its shard is there. Returns the number of rows."""
    made_of = fingerprint(_code_version(), part.file.digest, part.first, part.last)
    if finished_shard(part.shard, made_of) is None:
        rows = np.arange(part.first, part.last)
        with ShardWriter(part.shard, made_of, SIGNATURE) as writer:
            for _, batch in read_batches(part.file, SCHEMA.names, rows, BATCH_ROWS):
                records = map(Record.from_row, as_records(batch, part.file).to_pylist())
                writer.add_table(pa.Table.from_pylist([sign(one) for one in records], schema=SIGNATURE))
    return part.last - part.first


def sign(record: Record) -> dict:
    """The signature of a record, a row of SIGNATURE."""
    question = normalised(record.question)
    digests = [_hash(picture or b"") for picture in record.images]
    row = {
        "id": record.id,
        "source": record.source,
        "reward_type": record.reward_type,
        "question": question,
        "key": _hash(record.id),
        "content": _hash(record.source, record.reward_type, record.question, record.answer, record.meta),
        "prompt": _hash(question, *map(str, digests)),
        "asked": _hash(question),
        "words": len(question.split()),
        "digests": digests,
    }
    fault, pictures = _usable_pictures(record)
    if fault:
        unseen = {"answer": "", "answered": 0, "pixels": 0, "digests": [], "phashes": [], "copies": []}
        return row | unseen | {"fault": fault}
    seen = [look_at(picture) for picture in pictures]
    size = pictures[0].shape[1::-1] if pictures else None
    answer = normalised_answer(record.reward_type, record.answer, size)
    return row | {
        "answer": answer,
        "answered": _hash(answer),
        "pixels": sum(picture.shape[0] * picture.shape[1] for picture in pictures),
        "phashes": [look.phash for look in seen],
        "copies": [look.copy for look in seen],
        "fault": None,
    }


def _usable_pictures(record: Record) -> tuple[str | None, list[np.ndarray]]:
    """Why training would leave the record out, or its decoded pictures."""
    lengths = [len(picture or b"") for picture in record.images]
    if found := find_fault(record.to_row() | {"image_bytes": lengths}, set()):
        return ": ".join(found), []
    try:
        return None, [decode_image(picture) for picture in record.images]
    except ImageError as error:
        return f"images: {error}", []


def _plan(files: Sequence[InputFile], folder: Path) -> Iterator[SignaturePart]:
    """Parts of whole row groups, a thousand rows or more each where the file has them."""
    for file in files:
        first = last = 0
        for place, count in enumerate(file.row_groups):
            last += count
            if last - first >= PART_ROWS or (place == len(file.row_groups) - 1 and last > first):
                yield SignaturePart(file, first, last, folder / f"{file.digest[:24]}-{first:09d}.parquet")
                first = last


def _hash(*values: str | bytes) -> int:
    """64 bits of the values, each with its length before it."""
    digest = hashlib.blake2b(digest_size=8)
    for value in values:
        content = value.encode() if isinstance(value, str) else value
        digest.update(len(content).to_bytes(8, "big") + content)
    return int.from_bytes(digest.digest(), "big")


@lru_cache(maxsize=1)
def _code_version() -> str:
    """Changes with the rules by which signatures are made."""
    modules = (looks, texts, images, reader, record_files, schema)
    return fingerprint(*(Path(name).read_bytes() for name in (__file__, *(one.__file__ for one in modules))))
