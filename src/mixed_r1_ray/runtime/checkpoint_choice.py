"""Which checkpoint of a run is meant by a step, by `latest` and by `best`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.runtime import checkpoints
from mixed_r1_ray.runtime.checkpoints import Checkpoint
from mixed_r1_ray.runtime.metrics import read_metrics
from mixed_r1_ray.runtime.run_dir import RunFiles

DEFAULT_METRIC = "eval/greedy/mean"  # of `best` where the run kept none by a metric of its own (choice)


def best_step(lines: Iterable[Mapping[str, float | None]], metric: str, steps: Collection[int]) -> int | None:
    """The one of `steps` with the largest `metric` in the lines of metrics.jsonl, the later of equals; None without."""
    values = {line["step"]: line[metric] for line in lines if line.get(metric) is not None}
    evaluated = [step for step in steps if step in values]
    return max(evaluated, key=lambda step: (values[step], step), default=None)


def choose_checkpoint(run: RunFiles, which: str, metric: str) -> tuple[Checkpoint, list[str]]:
    """The checkpoint that `which` names (a step, `latest` or `best` by `metric`), every file verified.

    The second value names the faults of newer ones that `latest` passed over. Raises UserError, with the valid names,
    where there is no such checkpoint, and with the fault where it is damaged.
    """
    steps = checkpoints.steps_of(run.checkpoints)
    if not steps:
        raise UserError(f"run {run.path} has no checkpoint yet")
    if which == "latest":
        found, faults = checkpoints.newest_valid(run.checkpoints)
        if found is None:
            raise UserError(f"no checkpoint of {run.path} is whole: {'; '.join(faults)}")
        return found, faults
    step = _best(run, metric, steps) if which == "best" else _numbered(run, which, steps)
    return checkpoints.verify(checkpoints.folder_of(run.checkpoints, step)), []


def _best(run: RunFiles, metric: str, steps: Collection[int]) -> int:
    lines = read_metrics(run.metrics_file)
    step = best_step(lines, metric, steps)
    if step is None:
        known = sorted({name for line in lines for name in line if name.startswith("eval/")})
        near = ", ".join(get_close_matches(metric, known, n=3) or known[:3]) or "none"
        raise UserError(
            f"run {run.path}: no checkpoint's step has {metric} (checkpoints: {_listed(steps)}; metrics: {near}); "
            "name a step instead"
        )
    return step


def _numbered(run: RunFiles, which: str, steps: Collection[int]) -> int:
    if not which.isdecimal() or int(which) not in steps:
        raise UserError(f"run {run.path} has no checkpoint {which!r}; there are {_listed(steps)}, latest and best")
    return int(which)


def _listed(steps: Collection[int]) -> str:
    return ", ".join(str(step) for step in sorted(steps))
