"""All signatures of a collection as arrays, about a hundred bytes a record; texts are read when they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mixed_r1_ray.data.engine.looks import COPY_BYTES
from mixed_r1_ray.data.engine.signatures import SignaturePart
from mixed_r1_ray.data.record_files import InputFile

NUMBERS = ("key", "content", "prompt", "asked", "words", "answered", "pixels")
TEXTS = ("id", "question", "answer", "fault")


@dataclass(frozen=True, slots=True)
class SignatureTable:
    """N records with P pictures, in the order of files and rows. What arrays hold, SIGNATURE says.

    `copies` is a mapped file: it takes memory only where it is looked at.
    """

    files: list[InputFile]
    parts: list[SignaturePart]
    file: np.ndarray  # int32 (N,), a place in `files`
    row: np.ndarray  # int64 (N,)
    kinds: list[str]
    kind: np.ndarray  # int32 (N,), a place in `kinds`: reward types
    sources: list[str]
    source: np.ndarray  # int32 (N,)
    usable: np.ndarray  # bool (N,): its pictures can be decoded
    numbers: dict[str, np.ndarray]  # (N,) each
    first: np.ndarray  # int64 (N + 1,): pictures of record i are first[i] to first[i + 1]
    digest: np.ndarray  # uint64 (P,)
    phash: np.ndarray  # uint64 (P,)
    copies: np.ndarray  # uint8 (P, 768)

    def __len__(self) -> int:
        return len(self.row)

    def num_pictures(self) -> np.ndarray:
        """(N,)"""
        return np.diff(self.first)

    def owners(self) -> np.ndarray:
        """(P,): the record of each picture."""
        return np.repeat(np.arange(len(self)), self.num_pictures())

    def texts(self, records: np.ndarray) -> Iterator[tuple[int, dict[str, str | None]]]:
        """id, question, answer and fault of rising record numbers, a part of the shards in memory at a time."""
        ends = np.cumsum([part.last - part.first for part in self.parts])
        for part, end in zip(self.parts, ends, strict=True):
            begin = end - (part.last - part.first)
            wanted = records[slice(*np.searchsorted(records, (begin, end)))]
            if len(wanted):
                rows = pq.read_table(part.shard, columns=list(TEXTS)).take(pa.array(wanted - begin)).to_pylist()
                yield from zip(wanted.tolist(), rows, strict=True)


def load_table(files: Sequence[InputFile], parts: Sequence[SignaturePart], scratch: Path) -> SignatureTable:
    """Reads finished shards of signatures. scratch: a file for the small copies of pictures, written anew."""
    places = {file.path: number for number, file in enumerate(files)}
    columns: dict[str, list[np.ndarray]] = {}
    kinds, sources = _Codes(), _Codes()
    scratch.parent.mkdir(parents=True, exist_ok=True)
    with open(scratch, "wb") as copies:
        for part in parts:
            shard = pq.read_table(part.shard)
            read = {name: shard.column(name).to_numpy() for name in NUMBERS}
            read["digest"] = _flat(shard.column("digests")).to_numpy()
            read["phash"] = _flat(shard.column("phashes")).to_numpy()
            read["num_pictures"] = pc.list_value_length(shard.column("digests")).to_numpy()
            read["kind"] = kinds.of(shard.column("reward_type"))
            read["source"] = sources.of(shard.column("source"))
            read["usable"] = shard.column("fault").is_null().to_numpy()
            read["file"] = np.full(len(shard), places[part.file.path], np.int32)
            read["row"] = np.arange(part.first, part.last)
            for name, values in read.items():
                columns.setdefault(name, []).append(values)
            _append_copies(copies, shard.column("copies"))
    every = {name: np.concatenate(values) for name, values in columns.items()}
    shape = len(every["digest"]), COPY_BYTES
    return SignatureTable(
        files=list(files),
        parts=list(parts),
        kinds=kinds.names,
        sources=sources.names,
        numbers={name: every[name] for name in NUMBERS},
        first=np.concatenate([[0], np.cumsum(every.pop("num_pictures"))]),
        copies=np.memmap(scratch, np.uint8, "r", shape=shape) if shape[0] else np.empty(shape, np.uint8),
        **{name: values for name, values in every.items() if name not in NUMBERS},
    )


class _Codes:
    """Names met so far; each keeps its number."""

    def __init__(self):
        self.names: list[str] = []

    def of(self, column: pa.ChunkedArray) -> np.ndarray:
        new = [name for name in column.unique().to_pylist() if name not in self.names]
        self.names += new
        return pc.index_in(column, pa.array(self.names, pa.string())).to_numpy()


def _flat(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.list_flatten(column)


def _append_copies(file: BinaryIO, column: pa.ChunkedArray) -> None:
    for chunk in _flat(column).chunks:
        start = chunk.offset * COPY_BYTES
        file.write(memoryview(chunk.buffers()[1])[start : start + len(chunk) * COPY_BYTES])
