"""Scores a file of responses from beginning to end, in memory that does not grow with the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.rewards.response_files import Batch, ResponseFile, Scored, open_responses
from mixed_r1_ray.rewards.response_rows import ResponseRow, RowFault, read_row
from mixed_r1_ray.rewards.score_summary import ScoreSummary
from mixed_r1_ray.rewards.scorer import RewardScorer
from mixed_r1_ray.rewards.unscored import UnscoredWarnings
from mixed_r1_ray.types import BoxFrame, RewardBreakdown


@dataclass(frozen=True, slots=True)
class Task:
    """What to score and how. box_frame: see response_rows.read_row. progress: see RewardOptions."""

    file: Path
    output: Path
    responses: str = "response"
    box_frame: BoxFrame | None | Literal["own"] = "own"
    progress: float = 0.0
    has_embeddings: bool = False  # whether the scorer was given any
    custom_types: tuple[str, ...] = ()  # reward types that the user's own function scores


@dataclass(frozen=True, slots=True)
class _UnscoredPlace:
    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


def score_file(
    task: Task,
    scorer: RewardScorer,
    summary: ScoreSummary,
    warn: Callable[[str], None],
    progress: Callable[[int, int], None] = lambda done, size: None,
) -> None:
    """Writes `task.output`: the rows of `task.file`, pictures left out, with what their responses earn.

    warn: is told, once a reason, what could not be scored. progress: is told how much of the file is done.
    Raises UserError for a file that cannot be used as a whole; `task.output` is then not written.
    """
    source = open_responses(task.file, task.responses)
    warnings = UnscoredWarnings(warn)
    with source.writer(task.output) as writer:
        for batch in source.batches():
            scored, unscored = _score_batch(task, source, batch, scorer, summary)
            writer.write(batch, scored)
            warnings.add(unscored)
            progress(batch.done, source.size)
    summary.close_group()


def _score_batch(
    task: Task, source: ResponseFile, batch: Batch, scorer: RewardScorer, summary: ScoreSummary
) -> tuple[list[Scored], list[_UnscoredPlace]]:
    rows = [_read(task, values, batch.first + place) for place, values in enumerate(batch.rows)]
    _check_embeddings(task, rows, batch.first, source.unit)
    samples = [sample for row in rows if isinstance(row, ResponseRow) for sample in row.samples]
    breakdowns = iter(scorer.score(samples, progress=task.progress))
    scored, unscored = [], []
    for number, row in enumerate(rows, start=batch.first):
        where = f"{source.unit} {number}"
        if isinstance(row, RowFault):
            summary.bad_rows += 1
            unscored.append(_UnscoredPlace(f"{task.file}, {where}", str(row)))
            scored.append(Scored((RewardBreakdown("", None, None, None, str(row)),), source.is_list))
            continue
        own = tuple(next(breakdowns) for _ in row.samples)
        summary.add(where, row, own)
        unscored += [_UnscoredPlace(f"{task.file}, {where}", one.detail) for one in own if one.total is None]
        scored.append(Scored(own, row.is_list))
    return scored, unscored


def _read(task: Task, values: dict | RowFault, number: int) -> ResponseRow | RowFault:
    if isinstance(values, RowFault):
        return values
    try:
        return read_row(values, number, task.responses, task.box_frame)
    except RowFault as fault:
        return fault


def _check_embeddings(task: Task, rows: list[ResponseRow | RowFault], first: int, unit: str) -> None:
    if task.has_embeddings or "open_ended" in task.custom_types:
        return
    for number, row in enumerate(rows, start=first):
        if isinstance(row, ResponseRow) and row.samples[0].reward_type == "open_ended":
            raise UserError(
                f"{task.file}, {unit} {number}: open_ended answers are compared by a model's embeddings; "
                "give its checkpoint folder with --model"
            )
