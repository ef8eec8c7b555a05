"""Held-out results: what one evaluation says, what changed between two, and how that is shown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from mixed_r1_ray.runtime import atomic
from mixed_r1_ray.types import REWARD_TYPES

if TYPE_CHECKING:
    from rich.table import Table

MODES = ("greedy", "sampled")
PROMPT = ("reward_type", "source", "question", "answer")  # what makes a prompt, besides its id


@dataclass(frozen=True, slots=True)
class EvalResult:
    """One answer to a held-out prompt. Rewards are None where it could not be scored.

    The last five are for reading, not for counting: the report shows them, and draws boxes with the two
    sizes.
    """

    prompt_id: str
    reward_type: str
    source: str
    mode: str  # greedy, sampled
    total: float | None
    task: float | None
    format: float | None
    response: str
    detail: str = ""
    question: str = ""
    answer: str = ""
    image_size: tuple[int, int] | None = None  # (width, height), original pixels: the frame of gold boxes
    box_frame: tuple[float, float] | None = None  # (width, height) of the frame the model speaks in


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Change of the mean task reward between two evaluations, over the prompts that both scored."""

    reward_type: str
    mode: str
    num_prompts: int
    before: float
    after: float
    difference: float
    standard_error: float | None  # None for a single prompt
    num_unpaired: int  # prompts that one of the two lacks or could not score

    @property
    def verdict(self) -> str:
        """`up` or `down` beyond two standard errors, else `unclear`."""
        if self.standard_error is None or abs(self.difference) <= 2 * self.standard_error:
            return "unclear"
        return "up" if self.difference > 0 else "down"


def summarise(results: Sequence[EvalResult]) -> dict[str, float]:
    """The evaluation's metrics: eval/<mode>/<type> with its standard error and unscored count; formats.

    Means are of task rewards over prompts (several samples of a prompt are averaged first); prompts that
    could not be scored are left out of them and counted. eval/<mode>/mean is the mean over the types, each the same
    weight however many prompts it has (choice).
    """
    metrics: dict[str, float] = {}
    for mode in _ordered({result.mode for result in results}, MODES):
        of_mode = [result for result in results if result.mode == mode]
        means = []
        for kind in _ordered({result.reward_type for result in of_mode}, REWARD_TYPES):
            scores = task_by_prompt(of_mode, kind, mode)
            scored = [score for score in scores.values() if score is not None]
            name = f"eval/{mode}/{kind}"
            metrics[f"{name}/unscored"] = len(scores) - len(scored)
            if scored:
                metrics[name] = fmean(scored)
                means.append(metrics[name])
            if len(scored) > 1:
                metrics[f"{name}/se"] = standard_error(scored)
        if means:
            metrics[f"eval/{mode}/mean"] = fmean(means)
        formats = [result.format for result in of_mode if result.format is not None]
        if formats:
            metrics[f"eval/{mode}/format"] = fmean(formats)
    return metrics


def compare(before: Sequence[EvalResult], after: Sequence[EvalResult]) -> list[PairedDifference]:
    """Paired differences by mode and type, in that order, matched by prompt id.

    The standard error is that of the mean of the per-prompt differences, so what makes one prompt harder than
    another cancels. A type and mode without a common prompt is left out.
    """
    differences = []
    for mode in _ordered({result.mode for result in (*before, *after)}, MODES):
        for kind in _ordered({result.reward_type for result in (*before, *after)}, REWARD_TYPES):
            first, last = task_by_prompt(before, kind, mode), task_by_prompt(after, kind, mode)
            paired = [
                prompt for prompt in first if first[prompt] is not None and last.get(prompt) is not None
            ]
            if not paired:
                continue
            changes = [last[prompt] - first[prompt] for prompt in paired]
            differences.append(
                PairedDifference(
                    reward_type=kind,
                    mode=mode,
                    num_prompts=len(paired),
                    before=fmean(first[prompt] for prompt in paired),
                    after=fmean(last[prompt] for prompt in paired),
                    difference=fmean(changes),
                    standard_error=standard_error(changes) if len(changes) > 1 else None,
                    num_unpaired=len(first.keys() | last.keys()) - len(paired),
                )
            )
    return differences


def task_by_prompt(results: Iterable[EvalResult], reward_type: str, mode: str) -> dict[tuple, float | None]:
    """Prompt -> mean task reward of its scored samples; None where none was scored.

    A prompt is more than its id: held-out data may change in mid-run, and ids are often just row numbers.
    """
    samples: dict[tuple, list[float]] = {}
    for result in results:
        if result.reward_type == reward_type and result.mode == mode:
            prompt = (result.prompt_id, *(getattr(result, part) for part in PROMPT))
            scores = samples.setdefault(prompt, [])
            if result.task is not None:
                scores.append(result.task)
    return {prompt: fmean(scores) if scores else None for prompt, scores in samples.items()}


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean of two or more values."""
    return stdev(values) / math.sqrt(len(values))


def summary_table(results: Sequence[EvalResult], title: str) -> Table:
    """One evaluation as a rich table: mean task reward ± standard error by type and mode."""
    from rich.table import Table

    metrics = summarise(results)
    modes = _ordered({result.mode for result in results}, MODES)
    table = Table(title=title, title_justify="left")
    table.add_column("held-out task reward")
    for mode in modes:
        table.add_column(mode, justify="right")
        table.add_column("unscored", justify="right", style="dim")
    for kind in _ordered({result.reward_type for result in results}, REWARD_TYPES):
        cells = []
        for mode in modes:
            name = f"eval/{mode}/{kind}"
            cells += [
                _with_error(metrics.get(name), metrics.get(f"{name}/se")),
                str(metrics.get(f"{name}/unscored", "–")),
            ]
        table.add_row(kind, *cells)
    return table


def comparison_table(differences: Sequence[PairedDifference], title: str) -> Table:
    """Before, after and paired difference by type and mode, as a rich table."""
    from rich.table import Table

    styles = {"up": "green", "down": "red", "unclear": "default"}
    table = Table(title=title, title_justify="left")
    for heading in ("held-out task reward", "mode"):
        table.add_column(heading)
    for heading in ("prompts", "before", "after", "difference ± s.e."):
        table.add_column(heading, justify="right")
    for change in differences:
        table.add_row(
            change.reward_type,
            change.mode,
            str(change.num_prompts),
            f"{change.before:.3f}",
            f"{change.after:.3f}",
            _with_error(change.difference, change.standard_error, "+.3f"),
            style=styles[change.verdict],
        )
    return table


def as_text(table: Table, width: int = 110) -> str:
    """A rich table as plain text: no colours, no box-drawing, for logs."""
    from rich import box
    from rich.console import Console

    console = Console(width=width, color_system=None, force_terminal=False)
    table.box = box.SIMPLE
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines() if line.strip())


def save_results(folder: Path, step: int, results: Sequence[EvalResult]) -> Path:
    """Writes folder/step_<step>.parquet atomically and returns its path."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, number = pa.string(), pa.float64()
    kinds = {
        "str": text,
        "float | None": number,
        "tuple[int, int] | None": pa.list_(pa.int64()),
        "tuple[float, float] | None": pa.list_(number),
    }
    schema = pa.schema([pa.field(f.name, kinds[f.type]) for f in fields(EvalResult)])
    path = folder / f"step_{step:06d}.parquet"
    with atomic.replacing(path) as temporary:
        pq.write_table(
            pa.Table.from_pylist([asdict(result) for result in results], schema=schema),
            temporary,
            compression="zstd",
        )
    return path


def load_results(folder: Path, step: int) -> list[EvalResult] | None:
    """Reads the evaluation of a step back; None where there is none."""
    import pyarrow.parquet as pq

    path = folder / f"step_{step:06d}.parquet"
    if not path.is_file():
        return None
    pairs = ("image_size", "box_frame")
    return [
        EvalResult(**row | {name: tuple(row[name]) if row[name] is not None else None for name in pairs})
        for row in pq.read_table(path).to_pylist()
    ]


def evaluated_steps(folder: Path) -> list[int]:
    """Steps that have an evaluation, in order."""
    return sorted(int(path.stem.removeprefix("step_")) for path in folder.glob("step_*.parquet"))


def steps_unlike_the_last(folder: Path) -> set[int]:
    """Steps whose evaluation asked other prompts than the latest one: their means cannot be compared with its."""
    asked = {step: _prompts(folder / f"step_{step:06d}.parquet") for step in evaluated_steps(folder)}
    return {step for step, prompts in asked.items() if prompts != asked[max(asked)]}


def _prompts(path: Path) -> set[tuple[str, ...]]:
    import pyarrow.parquet as pq

    columns = ("prompt_id", *PROMPT)
    table = pq.read_table(path, columns=list(columns))
    return set(zip(*(table[name].to_pylist() for name in columns), strict=True))


def _ordered(names: set[str], order: Sequence[str]) -> list[str]:
    return [name for name in order if name in names] + sorted(names - set(order))


def _with_error(value: float | None, error: float | None, form: str = ".3f") -> str:
    if value is None:
        return "–"
    return f"{value:{form}}" + (f" ± {error:.3f}" if error is not None else "")
