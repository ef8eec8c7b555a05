"""Everything a run says and writes, behind one object: terminal, metrics, warnings, rollouts, evaluations, report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mixed_r1_ray.config import Config
from mixed_r1_ray.redaction import redact
from mixed_r1_ray.runtime import evaluation_table as tables
from mixed_r1_ray.runtime.evaluation_table import EvalResult
from mixed_r1_ray.runtime.metrics import MetricsLog, ScoredGroup, read_metrics, summarise_rewards
from mixed_r1_ray.runtime.progress import Progress
from mixed_r1_ray.runtime.report import write_report
from mixed_r1_ray.runtime.report_samples import choose_samples
from mixed_r1_ray.runtime.rollout_log import RolloutRow, write_rollouts
from mixed_r1_ray.runtime.run_dir import RunDir
from mixed_r1_ray.runtime.tracking import Tracker
from mixed_r1_ray.runtime.warning_log import WarningLog

if TYPE_CHECKING:
    from mixed_r1_ray.clock import Clock


class Journal:
    """Opened for the length of a run; what it keeps lies in the run's folder."""

    def __init__(self, config: Config, run_dir: RunDir):
        self.config, self.run_dir = config, run_dir
        self.progress = Progress(config.run.max_steps)
        self.warnings = WarningLog(run_dir.warnings_file, self.progress.warning)
        self.tracker = Tracker(config, run_dir, self.warn)
        self._held_up: dict[str, float] = {}  # by what lies between the last step and the next
        self._current_step: int | None = None  # what warnings belong to; None before the first
        self.metrics: MetricsLog | None = None  # opened by continue_from: it must know which lines to keep

    def __enter__(self) -> Journal:
        self.progress.__enter__()
        for text in self.run_dir.warnings:
            self.warn(text)
        return self

    def __exit__(self, kind, *_) -> None:
        self.tracker.close(failed=kind is not None)
        self.progress.__exit__()

    @property
    def last_step(self) -> int:
        """The last finished step; 0 before the first."""
        return (self._current_step or 1) - 1

    def say(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """What is going on, with a count where there is one."""
        self.progress.phase(redact(text), done, total)

    def warn(self, text: str) -> None:
        """Shown once, kept for the report."""
        self.warnings.add(redact(text), self._current_step)

    def continue_from(self, step: int) -> None:
        """Forgets what was written of later steps, and evaluations that were cut off: they will come again."""
        self.metrics = MetricsLog(self.run_dir.metrics_file, self.warn, resume_at=step)
        evaluated = {line["step"] for line in read_metrics(self.run_dir.metrics_file) if "time/eval_s" in line}
        for file in self.run_dir.rollouts.glob("step_*.parquet"):
            if _step_of(file) > step:
                file.unlink()
        for file in self.run_dir.evals.glob("step_*.parquet"):
            if _step_of(file) not in evaluated:
                file.unlink()
        self._current_step = step + 1
        self.progress.start_steps(step + 1)

    def step(self, step: int, metrics: dict[str, float]) -> None:
        """One finished step."""
        self._log(step, metrics)
        self.progress.step(step, metrics)
        self._current_step = step + 1

    def summarise(
        self, groups: Sequence[ScoredGroup], learned: dict[str, float], clock: Clock, num_bad_rows: int
    ) -> dict[str, float]:
        """The step's metrics, by their names in metrics.jsonl."""
        times, self._held_up = clock.metrics() | self._held_up, {}
        lengths = [length for group in groups for length in group.lengths]
        return (
            summarise_rewards(groups)
            | learned
            | times
            | {
                "data/bad_rows": num_bad_rows,
                "throughput/samples_per_s": len(lengths) / times["time/step_s"],
                "throughput/tokens_per_s": sum(lengths) / times["time/step_s"],
            }
        )

    def wants_rollouts(self, step: int) -> bool:
        every = self.config.run.save_rollouts_every
        return every > 0 and (step % every == 0 or step == 1)

    def rollouts(self, step: int, rows: Sequence[RolloutRow]) -> None:
        """What the step learned from."""
        write_rollouts(self.run_dir.rollouts, step, rows)

    def has_evaluation(self, step: int) -> bool:
        return tables.load_results(self.run_dir.evals, step) is not None

    def evaluation(self, step: int, results: Sequence[EvalResult], seconds: float) -> None:
        """One evaluation: kept, logged, printed; and set against the first where this is a later one."""
        tables.save_results(self.run_dir.evals, step, results)
        self._log(step, tables.summarise(results) | {"time/eval_s": seconds})
        self.progress.table(tables.summary_table(results, f"Held-out, after step {step}"))
        first = tables.load_results(self.run_dir.evals, 0)
        if step > 0 and first is not None:
            title = f"Step 0 and step {step}, paired by prompt"
            self.progress.table(tables.comparison_table(tables.compare(first, results), title))

    def checkpoint(self, seconds: float) -> None:
        """The time for which a checkpoint kept the learners from training; the next step's metrics hold it."""
        self._held_up = {"time/checkpoint_s": seconds}

    def report(self, pictures: Callable[[list[str]], dict[str, bytes]]) -> None:
        """Writes report.html with the pictures of the samples that it shows."""
        steps = tables.evaluated_steps(self.run_dir.evals)
        results = tables.load_results(self.run_dir.evals, steps[-1]) if steps else []
        chosen = choose_samples(results) if results else []
        path = write_report(self.run_dir.path, pictures(chosen))
        self.progress.print(f"report: {path}")

    def _log(self, step: int, metrics: dict[str, float]) -> None:
        self.metrics.append(step, metrics)
        self.tracker.log(step, metrics)


def _step_of(file: Path) -> int:
    return int(file.stem.removeprefix("step_"))
