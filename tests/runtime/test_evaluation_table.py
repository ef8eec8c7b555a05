from __future__ import annotations

import math
from dataclasses import replace

import pytest

from mixed_r1_ray.runtime.evaluation_table import (
    EvalResult,
    as_text,
    compare,
    comparison_table,
    evaluated_steps,
    load_results,
    save_results,
    summarise,
    summary_table,
)


def result(
    prompt_id: str, task: float | None, kind: str = "chart", mode: str = "greedy", **more
) -> EvalResult:
    scored = task is not None
    return EvalResult(
        prompt_id,
        kind,
        "source",
        mode,
        task + 0.5 if scored else None,
        task,
        1.0 if scored else None,
        "a response",
        **more,
    )


def test_summary_is_the_mean_with_the_standard_error_of_the_mean():
    metrics = summarise([result("a", 1.0), result("b", 0.0), result("c", 0.5), result("d", 0.5)])
    assert metrics["eval/greedy/chart"] == 0.5
    assert metrics["eval/greedy/chart/se"] == pytest.approx(
        math.sqrt(0.5 / 3) / 2
    )  # sample variance 0.5/3, n = 4
    assert metrics["eval/greedy/chart/unscored"] == 0 and metrics["eval/greedy/format"] == 1.0


def test_unscored_prompts_are_left_out_and_counted():
    metrics = summarise([result("a", 1.0), result("b", None), result("c", None, kind="iou")])
    assert metrics["eval/greedy/chart"] == 1.0 and metrics["eval/greedy/chart/unscored"] == 1
    assert "eval/greedy/chart/se" not in metrics  # one value has no spread
    assert "eval/greedy/iou" not in metrics and metrics["eval/greedy/iou/unscored"] == 1


def test_several_samples_of_a_prompt_are_one_observation():
    rows = [result("a", task, mode="sampled") for task in (0.0, 1.0, None)] + [
        result("b", 0.5, mode="sampled")
    ]
    metrics = summarise(rows)
    assert metrics["eval/sampled/chart"] == 0.5 and metrics["eval/sampled/chart/se"] == 0.0


def test_differences_are_paired_by_prompt_whatever_the_order():
    before = [result("a", 0.0), result("b", 0.5), result("c", 1.0)]
    after = [result("c", 1.0), result("b", 0.75), result("a", 0.25)]
    (change,) = compare(before, after)
    assert (change.reward_type, change.mode, change.num_prompts, change.num_unpaired) == (
        "chart",
        "greedy",
        3,
        0,
    )
    assert change.difference == pytest.approx(1 / 6)
    # differences .25, .25, 0: mean 1/6, sample variance (2 * (1/12)^2 + (1/6)^2) / 2 = 1/48
    assert change.standard_error == pytest.approx(math.sqrt(1 / 48 / 3))
    assert change.before == 0.5 and change.after == pytest.approx(2 / 3)


def test_prompts_that_one_side_lacks_or_could_not_score_are_unpaired():
    before = [result("a", 0.0), result("b", 0.0), result("c", None)]
    after = [result("a", 1.0), result("c", 1.0), result("d", 1.0)]
    (change,) = compare(before, after)
    assert (change.num_prompts, change.num_unpaired, change.before, change.after) == (1, 3, 0.0, 1.0)
    assert change.standard_error is None and change.verdict == "unclear"


def test_verdict_needs_more_than_two_standard_errors():
    before = [result(str(i), 0.0) for i in range(4)]
    assert compare(before, [result(str(i), 0.5) for i in range(4)])[0].verdict == "up"
    assert compare([result(str(i), 0.5) for i in range(4)], before)[0].verdict == "down"
    assert (
        compare(before, [result(str(i), float(i == 0)) for i in range(4)])[0].verdict == "unclear"
    )  # 1.0 s.e.


def test_modes_and_types_are_kept_apart_and_in_order():
    rows = [
        result("a", 0.0, kind, mode) for kind in ("open_ended", "matching") for mode in ("sampled", "greedy")
    ]
    assert [(change.mode, change.reward_type) for change in compare(rows, rows)] == [
        ("greedy", "matching"),
        ("greedy", "open_ended"),
        ("sampled", "matching"),
        ("sampled", "open_ended"),
    ]


def test_results_come_back_from_parquet(tmp_path):
    rows = [
        result(
            "a", None, question="q", answer="[1, 2, 3, 4]", image_size=(10, 20), box_frame=(1000.0, 1000.0)
        ),
        result("b", 0.25, detail="iou"),
    ]
    save_results(tmp_path, 40, rows)
    save_results(tmp_path, 0, rows[:1])
    assert load_results(tmp_path, 40) == rows
    assert load_results(tmp_path, 41) is None
    assert evaluated_steps(tmp_path) == [0, 40]


def test_no_results_can_be_saved_and_loaded(tmp_path):
    save_results(tmp_path, 0, [])
    assert load_results(tmp_path, 0) == []


def test_tables_as_plain_text_show_the_numbers():
    before, after = [result("a", 0.0), result("b", 0.5)], [result("a", 0.25), result("b", 0.75)]
    text = as_text(comparison_table(compare(before, after), "Change"))
    row = next(line for line in text.splitlines() if "chart" in line)
    assert row.split() == ["chart", "greedy", "2", "0.250", "0.500", "+0.250", "±", "0.000"]
    assert "\x1b" not in text and "Change" in text
    assert "0.250 ± 0.250" in as_text(summary_table(before, "Before"))


def test_a_prompt_of_the_same_id_that_asks_something_else_is_another_one():
    """Ids are often row numbers, and `data.eval` may change while a run is stopped."""
    asked, other = (replace(result("0", 1.0), question=question) for question in ("where?", "how many?"))
    assert compare([asked], [other]) == []
    assert compare([asked], [asked])[0].num_prompts == 1
