"""Generated groups as a Parquet file, a row a response: a checkpoint keeps what waits to be learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.types import Group, Rollout

SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        ("prompt_id", pa.string()),
        ("prompt_token_ids", pa.list_(pa.int32())),
        ("sample_index", pa.int32()),
        ("token_ids", pa.list_(pa.int32())),
        ("logprobs", pa.list_(pa.float32())),
        ("weight_versions", pa.list_(pa.int32())),
        ("text", pa.string()),
        ("finished", pa.bool_()),
    ]
)
ARRAYS = {"token_ids": np.int32, "logprobs": np.float32, "weight_versions": np.int32}


def write_groups(path: Path, groups: Mapping[int, Sequence[Group]]) -> None:
    """Writes the groups of each step."""
    rows = [
        {"step": step, "prompt_id": group.prompt_id, "prompt_token_ids": group.prompt_token_ids}
        | {name: getattr(rollout, name) for name in (field.name for field in fields(Rollout))}
        for step, members in groups.items()
        for group in members
        for rollout in group.rollouts
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)


def read_groups(path: Path) -> dict[int, list[Group]]:
    """What `write_groups` wrote, bit by bit. Raises UserError where the file is none of its kind."""
    try:
        rows = pq.read_table(path, schema=SCHEMA).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: the batches generated ahead cannot be read ({error})") from error
    groups: dict[tuple[int, str], list[dict]] = {}
    for row in rows:
        groups.setdefault((row["step"], row["prompt_id"]), []).append(row)
    steps: dict[int, list[Group]] = {}
    for (step, prompt_id), members in groups.items():
        prompt_token_ids = np.asarray(members[0]["prompt_token_ids"], dtype=np.int32)
        steps.setdefault(step, []).append(Group(prompt_id, prompt_token_ids, tuple(map(_rollout, members))))
    return steps


def _rollout(row: dict) -> Rollout:
    arrays = {name: np.asarray(row[name], dtype=dtype) for name, dtype in ARRAYS.items()}
    return Rollout(sample_index=row["sample_index"], text=row["text"], finished=row["finished"], **arrays)
