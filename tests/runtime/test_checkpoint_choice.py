"""Which checkpoint is the best."""

from __future__ import annotations

import pytest

from mixed_r1_ray.config_check import HELD_OUT_METRICS
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.runtime.checkpoint_choice import best_of, best_step, choose_checkpoint
from mixed_r1_ray.runtime.evaluation_table import EvalResult, save_results, summarise
from mixed_r1_ray.runtime.metric_names import METRICS
from mixed_r1_ray.runtime.metrics import MetricsLog
from mixed_r1_ray.runtime.run_dir import RunFiles

NAME = "eval/greedy/mean"
LINES = [
    {"step": 0, NAME: 0.1},
    {"step": 1, "reward/mean": 9.0},
    {"step": 1, NAME: 0.5},
    {"step": 2, NAME: 0.7},
    {"step": 3, NAME: None},
    {"step": 4, NAME: 0.7},
    {"step": 5, NAME: 0.6},
]


@pytest.mark.parametrize(
    ("steps", "best"), [(range(1, 6), 4), ([1, 2, 3], 2), ([1, 5], 5), ([3], None), ([], None), ([7, 1], 1)]
)
def test_best_is_the_largest_of_the_steps_that_were_evaluated_the_later_of_equals(steps, best):
    assert best_step(LINES, NAME, steps) == best


def test_another_metric_is_another_best_and_an_absent_one_none():
    assert best_step([{"step": 1, "eval/greedy/iou": 0.2}, {"step": 2, NAME: 1.0}], "eval/greedy/iou", [1, 2]) == 1
    assert best_step(LINES, "eval/sampled/mean", [1, 2]) is None


def test_a_run_without_a_checkpoint_says_so(tmp_path):
    with pytest.raises(UserError, match="has no checkpoint yet"):
        choose_checkpoint(RunFiles(tmp_path), "latest", NAME)


def evaluated(run: RunFiles, step: int, question: str, task: float) -> None:
    """An evaluation of one prompt; ids are row numbers, the same in every file."""
    results = [EvalResult("0", "iou", "shapes", "greedy", task, task, 1.0, "", question=question, answer="[1]")]
    save_results(run.evals, step, results)
    MetricsLog(run.metrics_file).append(step, summarise(results))


def test_evaluations_of_other_prompts_are_not_compared(tmp_path):
    run = RunFiles(tmp_path)
    run.evals.mkdir()
    for step, question, task in ((1, "old", 0.9), (2, "old", 0.8), (3, "new", 0.3), (4, "new", 0.2)):
        evaluated(run, step, question, task)
    assert best_of(run, NAME, [1, 2, 3, 4]) == 3
    assert best_of(run, NAME, [1, 2]) is None
    evaluated(run, 5, "old", 0.1)
    assert best_of(run, NAME, [1, 2, 3, 4]) == 1


def test_every_metric_that_keep_best_takes_is_one_that_runs_write():
    assert set(HELD_OUT_METRICS) <= METRICS.keys()
