"""report.html: one self-contained page about a run. Being written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mixed_r1_ray.runtime.evaluation_table import EvalResult


def choose_samples(results: Sequence[EvalResult], per_type: int = 3) -> list[str]:
    """Prompt ids of the samples that the report shows."""
    raise NotImplementedError


def write_report(run_dir: Path, eval_pictures: Mapping[str, bytes]) -> Path:
    """Writes report.html."""
    raise NotImplementedError
