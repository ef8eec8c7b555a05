"""Runs of the quickstart that differ in a setting; held-out results, paired by prompt and pooled over seeds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from statistics import fmean

from mixed_r1_ray.runtime.evaluation_table import PairedDifference, compare, load_results

TYPES = ("matching", "chart", "iou", "open_ended")
MODES = ("sampled", "greedy")
CACHE = Path("runs/.cache")  # of warm starts and data
By = dict[tuple[str, str], PairedDifference]  # (type, mode)
Cell = tuple[float, float]  # a difference and its standard error


def call(module: str, *words: object) -> None:
    """One command of this project, or the end of this one."""
    subprocess.run([sys.executable, "-m", f"mixed_r1_ray.{module}", *map(str, words)], check=True)


def seeded(seed: int) -> tuple[str, ...]:
    """Data, warm start and run of one seed."""
    return f"run.seed={seed}", f"tiny.seed={seed}", f"tiny.cache_dir={CACHE}"


def train(folder: Path, seed: int, steps: int, *settings: str) -> None:
    """The quickstart with these settings in `folder`, from where it was stopped; a finished run is left alone."""
    if load_results(folder / "evals", steps) is None:
        place = (f"run.dir={folder.parent}", f"run.name={folder.name}", f"run.max_steps={steps}", "run.resume=auto")
        call("main", "conf=quickstart", *place, *seeded(seed), *settings)


def difference(before: tuple[Path, int], after: tuple[Path, int]) -> By | None:
    """Held-out task rewards of one (run folder, step) minus another's; None where one of the two is not there yet."""
    results = [load_results(folder / "evals", step) for folder, step in (before, after)]
    if any(result is None for result in results):
        return None
    return {(change.reward_type, change.mode): change for change in compare(*results)}


def cells(found: By, mode: str) -> list[Cell]:
    """One a type."""
    return [(found[kind, mode].difference, found[kind, mode].standard_error) for kind in TYPES]


def over_seeds(found: Sequence[By], mode: str) -> list[Cell]:
    """One a type, the seeds' pooled."""
    return [pooled(of_type) for of_type in zip(*(cells(of_seed, mode) for of_seed in found), strict=True)]


def pooled(of: Sequence[Cell]) -> Cell:
    """Mean of independent differences, and its standard error: that of the prompts, not of training once more."""
    return fmean(value for value, _ in of), sqrt(sum(error**2 for _, error in of)) / len(of)


def said(cell: Cell) -> str:
    return f"{cell[0]:+.3f} ± {cell[1]:.3f}"


def print_row(*texts: object) -> None:
    print(f"| {' | '.join(map(str, texts))} |")


def print_head(*texts: object) -> None:
    print_row(*texts)
    print("|" + "---|" * len(texts))
