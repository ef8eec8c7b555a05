"""rollouts/step_000010.parquet: every response of a step with what it earned: what a run learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from mixed_r1_ray.runtime import atomic


@dataclass(frozen=True, slots=True)
class RolloutRow:
    """One response. Rewards and advantage are None where it could not be scored."""

    prompt_id: str
    source: str
    reward_type: str
    question: str
    answer: str
    sample_index: int
    response: str
    reward_total: float | None
    reward_task: float | None
    reward_format: float | None
    reward_detail: str
    advantage: float | None
    weight_version_oldest: int
    weight_version_newest: int
    prompt_tokens: int
    response_tokens: int
    finished: bool


def write_rollouts(folder: Path, step: int, rows: Sequence[RolloutRow]) -> Path:
    """Writes the rows of one step to folder/step_<step>.parquet, atomically; returns the path."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"str": pa.string(), "int": pa.int64(), "float | None": pa.float64(), "bool": pa.bool_()}
    schema = pa.schema(
        [pa.field("step", pa.int64()), *(pa.field(f.name, kinds[f.type]) for f in fields(RolloutRow))]
    )
    columns = {"step": [step] * len(rows)}
    columns |= {f.name: [getattr(row, f.name) for row in rows] for f in fields(RolloutRow)}
    path = folder / f"step_{step:06d}.parquet"
    with atomic.replacing(path) as temporary:
        pq.write_table(pa.table(columns, schema=schema), temporary, compression="zstd")
    return path


def read_rollouts(path: Path) -> list[RolloutRow]:
    """Reads the rows of one step back."""
    import pyarrow.parquet as pq

    names = [f.name for f in fields(RolloutRow)]
    return [RolloutRow(**row) for row in pq.read_table(path, columns=names).to_pylist()]
