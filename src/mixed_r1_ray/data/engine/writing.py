"""Writes the records that were kept, in the order of files and rows, with what the answers earned in `meta`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from mixed_r1_ray.data.engine.bands import Answers
from mixed_r1_ray.data.engine.table import SignatureTable
from mixed_r1_ray.data.record_files import in_row_groups, read_records
from mixed_r1_ray.data.schema import SCHEMA
from mixed_r1_ray.data.shards import Shard, ShardWriter, fingerprint, finished_shard, prepare_folder

DIGITS = 6  # of rates that are stored


def write_kept(
    out: Path,
    table: SignatureTable,
    kept: np.ndarray,
    answers: Answers | None,
    model: str,
    shard_records: int,
) -> list[Shard]:
    """The shards of the selection; finished ones are left as they are."""
    parts = [kept[first : first + shard_records] for first in range(0, len(kept), shard_records)]
    names = [f"selected-{number:05d}-of-{len(parts):05d}.parquet" for number in range(len(parts))]
    prepare_folder(out, names)
    shards = []
    digests = np.array([file.digest for file in table.files])
    for name, part in zip(names, parts, strict=True):
        extra = None if answers is None else [_meta(answers, one, model) for one in part.tolist()]
        places = digests[table.file[part]].tolist(), table.row[part].tolist()
        made_of = fingerprint(*places, extra)
        shard = finished_shard(out / name, made_of)
        if shard is None:
            with ShardWriter(out / name, made_of) as writer:
                for rows in in_row_groups(_records(table, part, extra)):
                    writer.add_table(rows)
            shard = writer.shard
        shards.append(shard)
    return shards


def _records(table: SignatureTable, part: np.ndarray, extra: list[dict] | None) -> Iterator[pa.Table]:
    done = 0
    for rows in read_records(table.files, table.file[part], table.row[part]):
        if extra is not None:
            metas = zip(rows.column("meta").to_pylist(), extra[done : done + len(rows)], strict=True)
            texts = [_with(meta, more) for meta, more in metas]
            place = SCHEMA.get_field_index("meta")
            rows = rows.set_column(place, SCHEMA.field(place), pa.array(texts, pa.string()))
            done += len(rows)
        yield rows


def _meta(answers: Answers, record: int, model: str) -> dict[str, object]:
    """What later curricula and the data card read; `mix` takes `pass_rate`."""
    return {
        "pass_rate": round(float(answers.mean[record]), DIGITS),
        "reward_std": round(float(answers.std[record]), DIGITS),
        "pass_rate_samples": int(answers.num_scored[record]),
        "pass_rate_model": model,
    }


def _with(meta: str, more: Mapping[str, object]) -> str:
    return json.dumps(json.loads(meta or "{}") | more, ensure_ascii=False)
