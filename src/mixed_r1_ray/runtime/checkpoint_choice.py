"""Which checkpoint of a run is meant by a step, by `latest` and by `best`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.runtime import checkpoints
from mixed_r1_ray.runtime.checkpoints import Checkpoint
from mixed_r1_ray.runtime.evaluation_table import steps_unlike_the_last
from mixed_r1_ray.runtime.metrics import read_metrics
from mixed_r1_ray.runtime.run_dir import RunFiles

DEFAULT_METRIC = "eval/greedy/mean"  # of `best` where the run kept none by a metric of its own (choice)


def best_step(lines: Iterable[Mapping[str, float | None]], metric: str, steps: Collection[int]) -> int | None:
    """The one of `steps` with the largest `metric` in the lines of metrics.jsonl, the later of equals; None without."""
    values = {line["step"]: line[metric] for line in lines if line.get(metric) is not None}
    evaluated = [step for step in steps if step in values]
    return max(evaluated, key=lambda step: (values[step], step), default=None)


def best_of(run: RunFiles, metric: str, steps: Collection[int]) -> int | None:
    """The same in a run's folder, of the steps that were evaluated on the prompts of the latest evaluation.

    `data.eval` may change when a run is continued, and means over other prompts cannot be compared.
    """
    lines = read_metrics(run.metrics_file)
    if best_step(lines, metric, steps) is None:
        return None
    return best_step(lines, metric, set(steps) - steps_unlike_the_last(run.evals))


def choose_checkpoint(
    run: RunFiles, which: str, metric: str, use: Callable[[Checkpoint], None] = lambda checkpoint: None
) -> tuple[Checkpoint, list[str]]:
    """The checkpoint that `which` names (a step, `latest` or `best` by `metric`), every file verified.

    use: called with it; it may raise Unusable. The second value names the faults of those that `latest` and `best`
    passed over. Raises UserError, with the valid names, where there is no such checkpoint, and with the fault where it
    is unusable.
    """
    steps = checkpoints.steps_of(run.checkpoints)
    if not steps:
        raise UserError(f"run {run.path} has no checkpoint yet")
    if which == "best":
        steps = _best_first(run, metric, steps)
    elif which != "latest":
        steps = [_numbered(run, which, steps)]
    found, faults = checkpoints.first_valid((checkpoints.folder_of(run.checkpoints, step) for step in steps), use)
    if found is None:
        raise UserError(f"no such checkpoint of {run.path} can be used: {'; '.join(faults)}")
    return found, faults


def _best_first(run: RunFiles, metric: str, steps: Collection[int]) -> list[int]:
    """All that have the metric."""
    left, ordered = set(steps), []
    while (step := best_of(run, metric, left)) is not None:
        ordered.append(step)
        left.remove(step)
    if not ordered:
        lines = read_metrics(run.metrics_file)
        known = sorted({name for line in lines for name in line if name.startswith("eval/")})
        near = ", ".join(get_close_matches(metric, known, n=3) or known[:3]) or "none"
        raise UserError(
            f"run {run.path}: no checkpoint's step has {metric} (checkpoints: {_listed(steps)}; metrics: {near}); "
            "name a step instead"
        )
    return ordered


def _numbered(run: RunFiles, which: str, steps: Collection[int]) -> int:
    if not which.isdecimal() or int(which) not in steps:
        raise UserError(f"run {run.path} has no checkpoint {which!r}; there are {_listed(steps)}, latest and best")
    return int(which)


def _listed(steps: Collection[int]) -> str:
    return ", ".join(str(step) for step in sorted(steps))
