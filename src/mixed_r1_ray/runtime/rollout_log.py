"""rollouts/step_000010.parquet: every response of a step with what it earned: what a run learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from mixed_r1_ray.runtime import atomic


@dataclass(frozen=True, slots=True)
class RolloutRow:
    """One response, with all that scoring took. Rewards are None where it was not scored, the
    advantage also where it was left out because it was cut."""

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
    choices: tuple[str, ...] | None = None
    image_size: tuple[int, int] | None = None  # (width, height), original pixels: the frame of gold boxes
    box_frame: tuple[float, float] | None = None  # (width, height) of the frame the model speaks in


def write_rollouts(folder: Path, step: int, rows: Sequence[RolloutRow]) -> Path:
    """Writes the rows of one step to folder/step_<step>.parquet, atomically; returns the path."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {
        "str": pa.string(),
        "int": pa.int64(),
        "float | None": pa.float64(),
        "bool": pa.bool_(),
        "tuple[str, ...] | None": pa.list_(pa.string()),
        "tuple[int, int] | None": pa.list_(pa.int64()),
        "tuple[float, float] | None": pa.list_(pa.float64()),
    }
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
    rows = pq.read_table(path, columns=names).to_pylist()
    return [RolloutRow(**{name: _frozen(value) for name, value in row.items()}) for row in rows]


def _frozen(value):
    return tuple(value) if isinstance(value, list) else value
