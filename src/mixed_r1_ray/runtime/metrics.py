"""metrics.jsonl: one JSON object a line, and the metrics that follow from a step's rewards."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.runtime import atomic
from mixed_r1_ray.runtime.metric_names import check_names
from mixed_r1_ray.types import RewardBreakdown


class MetricsLog:
    """Appends a line a step, each flushed to disk; an evaluation has its own line under the step it follows.

    JSON has no NaN or infinity: such a value is written as null, and `warn` is told its name and step. Two
    lines of one step may not share a name. `resume_at` keeps the lines up to that step, for a run that
    continues from there; a line that was half written when the last driver died is cut off in any case.
    """

    def __init__(
        self, path: Path, warn: Callable[[str], None] | None = None, resume_at: int | None = None
    ) -> None:
        self._path = path
        self._warn = warn or (lambda text: None)
        self._repair(resume_at)
        lines = read_metrics(path)
        self._last_step = lines[-1]["step"] if lines else -1
        self._names = {name for line in lines if line["step"] == self._last_step for name in line} - {"step"}

    def append(self, step: int, values: Mapping[str, float | int | None]) -> None:
        """Writes one line. Raises ValueError for undeclared names, earlier steps and names given twice."""
        check_names(values)
        if step < self._last_step:
            raise ValueError(f"metrics of step {step} after those of step {self._last_step}")
        known = self._names if step == self._last_step else set()
        if known & values.keys():
            raise ValueError(
                f"metrics of step {step} given twice: {', '.join(sorted(known & values.keys()))}"
            )
        line = {"step": step} | {name: self._finite(step, name, value) for name, value in values.items()}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._last_step, self._names = step, known | values.keys()

    def _finite(self, step: int, name: str, value: float | int | None) -> float | int | None:
        if value is None:
            return None
        number = value if isinstance(value, int) else float(value)
        if math.isfinite(number):
            return number
        self._warn(f"step {step}: {name} is {number}; written as null")
        return None

    def _repair(self, resume_at: int | None) -> None:
        if not self._path.is_file():
            return
        content = self._path.read_bytes()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            self._warn(f"{self._path.name}: a half-written last line was cut off")
        kept = content[:end]
        if resume_at is not None:
            lines = zip(kept.splitlines(keepends=True), _parse(self._path, kept), strict=True)
            kept = b"".join(raw for raw, line in lines if line["step"] <= resume_at)
        if kept != content:
            atomic.write_bytes(self._path, kept)


def read_metrics(path: Path) -> list[dict]:
    """Reads metrics.jsonl; a half-written last line is left out. Raises UserError for any other bad line."""
    if not path.is_file():
        return []
    content = path.read_bytes()
    return _parse(path, content[: content.rfind(b"\n") + 1])


def _parse(path: Path, content: bytes) -> list[dict]:
    lines = []
    for number, raw in enumerate(content.splitlines(), start=1):
        try:
            line = json.loads(raw)
            if not isinstance(line["step"], int):
                raise ValueError("step is no integer")
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}, line {number}: not a line of metrics ({error!r}); restore the file, or start "
                f"afresh with run.resume=overwrite"
            ) from error
        lines.append(line)
    return lines


@dataclass(frozen=True, slots=True)
class ScoredGroup:
    """What one finished group contributes to a step's metrics; G entries in each tuple."""

    reward_type: str
    source: str
    rewards: tuple[RewardBreakdown, ...]
    lengths: tuple[int, ...]
    finished: tuple[bool, ...]


def summarise_rewards(groups: Sequence[ScoredGroup]) -> dict[str, float]:
    """Returns a step's reward, length and group metrics, by their names in metrics.jsonl.

    Means are over scored samples; a mean over none is left out, not 0. A group counts as zero-variance when
    its scored samples do not differ in their total (fewer than two of them included): it gives no gradient.
    """
    by_type: dict[str, list[ScoredGroup]] = {}
    by_source: dict[str, list[ScoredGroup]] = {}
    for group in groups:
        by_type.setdefault(group.reward_type, []).append(group)
        by_source.setdefault(group.source, []).append(group)
    everything = _scored(groups)
    totals = [reward.total for reward in everything]
    unscored = sum(len(group.rewards) for group in groups) - len(totals)
    metrics: dict[str, float] = {"rewards/unscored": unscored}
    if totals:
        metrics |= {
            "reward/mean": fmean(totals),
            "reward/std": pstdev(totals),
            "reward/format": fmean(reward.format for reward in everything),
        }
    if groups:
        lengths = [length for group in groups for length in group.lengths]
        metrics |= {
            "length/response_tokens": fmean(lengths),
            "length/unfinished_fraction": fmean(not done for group in groups for done in group.finished),
            "group/zero_variance_fraction": fmean(map(is_flat, groups)),
        }
    for kind, members in by_type.items():
        metrics |= _mean_task(f"reward/{kind}", members)
        metrics[f"group/zero_variance_fraction/{kind}"] = fmean(map(is_flat, members))
        metrics[f"length/response_tokens/{kind}"] = fmean(
            length for group in members for length in group.lengths
        )
    for source, members in by_source.items():
        metrics |= _mean_task(f"reward/source/{source}", members)
        missing = sum(len(group.rewards) for group in members) - len(_scored(members))
        if missing:
            metrics[f"rewards/unscored/source/{source}"] = missing
    return metrics


def _scored(groups: Sequence[ScoredGroup]) -> list[RewardBreakdown]:
    return [reward for group in groups for reward in group.rewards if reward.total is not None]


def _mean_task(name: str, groups: Sequence[ScoredGroup]) -> dict[str, float]:
    tasks = [reward.task for reward in _scored(groups)]
    return {name: fmean(tasks)} if tasks else {}


def is_flat(group: ScoredGroup) -> bool:
    totals = [reward.total for reward in group.rewards if reward.total is not None]
    return len(totals) < 2 or max(totals) - min(totals) <= 1e-9
