"""Stage 3, the work: which rows are answered together, and what is known of each when it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mixed_r1_ray.data.engine.bands import Answers
from mixed_r1_ray.data.engine.table import SignatureTable
from mixed_r1_ray.data.record_files import InputFile
from mixed_r1_ray.data.shards import fingerprint, finished_shard, prepare_folder

ANSWERED = pa.schema(
    [
        ("row", pa.int64()),  # of the input file
        ("id", pa.string()),
        ("source", pa.string()),
        ("reward_type", pa.string()),
        ("rewards", pa.list_(pa.float64())),  # task reward of each answer; null: it could not be scored
        ("mean", pa.float64()),  # of those that could; null where none could
        ("std", pa.float64()),
        ("lengths", pa.list_(pa.int32())),  # tokens of each answer
        ("unscored", pa.int32()),
        ("detail", pa.string()),  # of the first answer without a reward; or why the record cannot be asked
        ("asked", pa.bool_()),
    ]
)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of one file that are answered together; `records` are their numbers in the table."""

    file: InputFile
    rows: np.ndarray  # int64 (n,), rising
    records: np.ndarray  # int64 (n,)
    shard: Path
    made_of: str

    def finished(self) -> bool:
        """Whether its answers are on disk, and of these rows by this model."""
        return finished_shard(self.shard, self.made_of) is not None


def plan_chunks(
    table: SignatureTable, records: np.ndarray, chunk_rows: int, folder: Path, made_by: str
) -> list[Chunk]:
    """The records cut at fixed row numbers of their files, so that dropping one changes no chunk but its own.

    made_by: fingerprint of all else that the answers depend on. Leftovers of other plans are removed.
    """
    windows = table.row[records] // chunk_rows
    edges = np.flatnonzero((np.diff(windows) != 0) | (np.diff(table.file[records]) != 0)) + 1
    chunks = []
    for some in np.split(records, edges) if len(records) else []:
        file, rows = table.files[table.file[some[0]]], table.row[some]
        name = f"{file.digest[:24]}-{rows[0] // chunk_rows * chunk_rows:09d}.parquet"
        made_of = fingerprint(made_by, file.digest, rows.tolist())
        chunks.append(Chunk(file, rows, some, folder / name, made_of))
    prepare_folder(folder, [chunk.shard.name for chunk in chunks])
    return chunks


def gather(table: SignatureTable, chunks: Sequence[Chunk], num_samples: int) -> Answers:
    """What finished chunks say of each record."""
    answers = Answers.none_yet(len(table), num_samples)
    unusable: dict[int, str] = {}
    for chunk in chunks:
        read = pq.read_table(chunk.shard, columns=["mean", "std", "unscored", "detail", "asked"])
        answers.mean[chunk.records] = read.column("mean").to_numpy()
        answers.std[chunk.records] = read.column("std").to_numpy()
        asked = read.column("asked").to_numpy()
        answers.num_scored[chunk.records] = np.where(asked, num_samples - read.column("unscored").to_numpy(), 0)
        for place in np.flatnonzero(~asked).tolist():
            unusable[int(chunk.records[place])] = read.column("detail")[place].as_py()
    return Answers(answers.mean, answers.std, answers.num_scored, num_samples, unusable)
