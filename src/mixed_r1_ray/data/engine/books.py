"""The books of a selection: a line for every dropped record, and how many records each stage dropped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mixed_r1_ray.data.card_charts import histogram
from mixed_r1_ray.data.engine.bands import Answers, describe
from mixed_r1_ray.data.engine.table import SignatureTable
from mixed_r1_ray.data.engine.verdicts import KEPT, STAGES, Verdicts
from mixed_r1_ray.runtime import atomic
from mixed_r1_ray.types import REWARD_TYPES

LEDGER, SUMMARY, CHART = "dropped.jsonl", "summary.json", "pass_rates.svg"
COLUMNS = ("found", *STAGES[1:], STAGES[KEPT])
Counts = dict[tuple[str, str], dict[str, int]]  # (reward type, source) -> column -> records


def write_ledger(
    path: Path,
    table: SignatureTable,
    verdicts: Verdicts,
    held_out: Mapping[str, SignatureTable],
    answers: Answers | None,
) -> None:
    """A line for each dropped record, in the order of files and rows; the record it resembles is named."""
    dropped = np.flatnonzero(verdicts.stage != KEPT)
    names = _names_of_likes(table, verdicts, held_out, dropped)
    sets = [None, *held_out]
    with atomic.replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for record, texts in table.texts(dropped):
            like, of = names.get(record), sets[verdicts.of[record] + 1]
            stage = STAGES[verdicts.stage[record]]
            line = {
                "id": texts["id"],
                "source": table.sources[table.source[record]],
                "reward_type": table.kinds[table.kind[record]],
                "file": table.files[table.file[record]].path.name,
                "row": int(table.row[record]),
                "stage": stage,
                "reason": texts["fault"] or _reason(stage, record, like, of, answers),
                "resembles": like,
                "of": of,
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def count(table: SignatureTable, verdicts: Verdicts) -> Counts:
    """Records by reward type and source, in each column of the summary."""
    width = len(STAGES)
    cells = (table.kind.astype(np.int64) * len(table.sources) + table.source) * width + verdicts.stage
    counts = np.bincount(cells, minlength=len(table.kinds) * len(table.sources) * width)
    by_stratum = counts.reshape(len(table.kinds), len(table.sources), width)
    found: Counts = {}
    for kind in sorted(table.kinds, key=_place):
        for source in sorted(table.sources):
            row = by_stratum[table.kinds.index(kind), table.sources.index(source)].tolist()
            if sum(row):
                stages = dict(zip(STAGES, row, strict=True))
                found[kind, source] = {name: stages.get(name, sum(row)) for name in COLUMNS}
    return found


def write_summary(out: Path, counts: Counts, notes: Mapping[str, object]) -> None:
    """summary.json: the counts of the printed table, and `notes`: model, evaluation sets, hashes of the shards."""
    rows = [
        {"reward_type": kind, "source": source, **columns} for (kind, source), columns in counts.items()
    ]
    text = json.dumps({**notes, "records": rows}, ensure_ascii=False, indent=1)
    atomic.write_text(out / SUMMARY, text + "\n")


def write_chart(out: Path, table: SignatureTable, answers: Answers | None) -> None:
    """pass_rates.svg: the mean task reward of every record that was answered, by reward type; none, no file."""
    if answers is None or np.isnan(answers.mean).all():
        (out / CHART).unlink(missing_ok=True)
        return
    rated = np.flatnonzero(~np.isnan(answers.mean))
    values = {
        kind: answers.mean[rated[table.kind[rated] == table.kinds.index(kind)]]
        for kind in REWARD_TYPES
        if kind in table.kinds
    }
    chart = histogram(values, "Mean task reward of answered records", "mean task reward", limits=(0.0, 1.0))
    atomic.write_text(out / CHART, chart)


def totals(counts: Counts) -> str:
    """`found 16,384, contaminated 71, kept 16,313`."""
    sums = {name: sum(row[name] for row in counts.values()) for name in COLUMNS}
    return ", ".join(f"{name} {number:,}" for name, number in sums.items() if number)


def print_summary(counts: Counts, title: str) -> None:
    """The counts as a table; columns without any number are left out."""
    from rich.console import Console
    from rich.table import Table

    from mixed_r1_ray.runtime.evaluation_table import as_text

    shown = [name for name in COLUMNS if name in ("found", "kept") or any(row[name] for row in counts.values())]
    table = Table("type", "source", title=title)
    for name in shown:
        table.add_column(name, justify="right")
    for (kind, source), row in counts.items():
        table.add_row(kind, source, *(f"{row[name]:,}" for name in shown))
    table.add_section()
    table.add_row("all", "", *(f"{sum(row[name] for row in counts.values()):,}" for name in shown))
    console = Console(highlight=False, markup=False)
    if console.is_terminal:
        console.print(table)
    else:
        print(as_text(table, width=140))


def _names_of_likes(
    table: SignatureTable, verdicts: Verdicts, held_out: Mapping[str, SignatureTable], dropped: np.ndarray
) -> dict[int, str]:
    """Dropped record -> id of the record that it resembles."""
    names: dict[int, str] = {}
    for number, other in enumerate((table, *held_out.values())):
        mine = dropped[(verdicts.of[dropped] == number - 1) & (verdicts.like[dropped] >= 0)]
        ids = {place: texts["id"] for place, texts in other.texts(np.unique(verdicts.like[mine]))}
        names |= {int(record): ids[int(verdicts.like[record])] for record in mine}
    return names


def _reason(stage: str, record: int, like: str | None, of: str | None, answers: Answers | None) -> str:
    if stage == "exact duplicate":
        return f"the pictures and the question of {like}"
    if stage == "near duplicate":
        return f"near {like} in picture, question and answer"
    if stage == "contaminated":
        return f"resembles {like} of {of}"
    if like is not None:
        return "its id stands for another record too"
    return describe(stage, record, answers)


def _place(kind: str) -> tuple[int, str]:
    return (REWARD_TYPES.index(kind) if kind in REWARD_TYPES else len(REWARD_TYPES), kind)
