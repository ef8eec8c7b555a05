from __future__ import annotations

import json

import pytest

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.runtime.metric_names import METRICS, check_names
from mixed_r1_ray.runtime.metrics import MetricsLog, ScoredGroup, read_metrics, summarise_rewards
from mixed_r1_ray.types import RewardBreakdown


def reward(task: float | None, form: float = 1.0) -> RewardBreakdown:
    total = None if task is None else task + 0.5 * form
    return RewardBreakdown("chart", total, task, None if task is None else form, "")


def group(
    *tasks: float | None, kind: str = "chart", source: str = "a", lengths=None, finished=None
) -> ScoredGroup:
    count = len(tasks)
    return ScoredGroup(
        kind,
        source,
        tuple(map(reward, tasks)),
        tuple(lengths or [10] * count),
        tuple(finished or [True] * count),
    )


def test_lines_read_back_as_they_were_given(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append(0, {"eval/greedy/chart": 0.25})
    log.append(1, {"reward/mean": 0.1 + 0.2, "rewards/unscored": 3, "kl/reference": None})
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        {"step": 0, "eval/greedy/chart": 0.25},
        {"step": 1, "reward/mean": 0.1 + 0.2, "rewards/unscored": 3, "kl/reference": None},
    ]


def test_nan_and_infinity_become_null_with_a_warning(tmp_path):
    warnings = []
    MetricsLog(tmp_path / "m", warnings.append).append(
        4, {"grad_norm": float("inf"), "entropy": float("nan")}
    )
    raw = (tmp_path / "m").read_text()
    assert json.loads(raw, parse_constant=pytest.fail) == {"step": 4, "grad_norm": None, "entropy": None}
    assert [text.split(";")[0] for text in warnings] == ["step 4: grad_norm is inf", "step 4: entropy is nan"]


def test_undeclared_name_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(ValueError, match=r"reward/macthing \(nearest: reward/matching\)"):
        MetricsLog(tmp_path / "m").append(1, {"reward/macthing": 1.0})
    assert not (tmp_path / "m").exists()
    check_names(["reward/source/ChartQA", "time/step_s"])


def test_every_name_of_the_contract_is_declared():
    types = ("matching", "chart", "iou", "open_ended")
    names = (
        "reward/mean reward/format kl/reference loss/policy entropy grad_norm clip/fraction "
        "length/response_tokens group/zero_variance_fraction mismatch/logprob_abs_max mismatch/kl "
        "staleness/max time/step_s time/generate_s time/reward_s time/reference_s time/learn_s time/sync_s time/idle_s "
        "throughput/samples_per_s throughput/tokens_per_s rewards/unscored data/bad_rows"
    ).split()
    names += [f"reward/{kind}" for kind in types]
    names += [
        f"eval/{mode}/{kind}{end}" for mode in ("greedy", "sampled") for kind in types for end in ("", "/se")
    ]
    assert set(names) <= METRICS.keys() and all(METRICS.values())


def test_evaluation_may_share_a_step_but_not_a_name(tmp_path):
    log = MetricsLog(tmp_path / "m")
    log.append(1, {"reward/mean": 1.0})
    log.append(1, {"eval/greedy/chart": 1.0})
    with pytest.raises(ValueError, match="reward/mean"):
        log.append(1, {"reward/mean": 1.0})
    with pytest.raises(ValueError, match="step 0 after"):
        log.append(0, {"reward/mean": 1.0})


def test_resume_keeps_lines_up_to_its_step_and_repairs_a_half_written_one(tmp_path):
    path, warnings = tmp_path / "m", []
    log = MetricsLog(path)
    for step in range(4):
        log.append(step, {"reward/mean": float(step)})
    with path.open("a") as file:
        file.write('{"step": 4, "rewa')
    log = MetricsLog(path, warnings.append, resume_at=2)
    assert len(warnings) == 1 and "half-written" in warnings[0]
    log.append(3, {"reward/mean": 30.0})
    assert [line["reward/mean"] for line in read_metrics(path)] == [0.0, 1.0, 2.0, 30.0]


def test_reading_leaves_a_half_written_line_out_and_names_a_broken_one(tmp_path):
    path = tmp_path / "m"
    path.write_text('{"step": 0}\n{"step"')
    assert read_metrics(path) == [{"step": 0}]
    path.write_text('{"step": 0}\nrubbish\n{"step": 2}\n')
    with pytest.raises(UserError, match="line 2"):
        read_metrics(path)


def test_means_are_over_scored_samples_only():
    metrics = summarise_rewards([group(1.0, 0.0, None, None), group(0.5, 0.5, kind="iou", source="b")])
    assert metrics["reward/chart"] == 0.5 and metrics["reward/iou"] == 0.5
    assert metrics["reward/mean"] == pytest.approx((1.5 + 0.5 + 1.0 + 1.0) / 4)
    assert metrics["reward/format"] == 1.0
    assert metrics["rewards/unscored"] == 2 and metrics["rewards/unscored/source/a"] == 2
    assert metrics["reward/source/b"] == 0.5 and "rewards/unscored/source/b" not in metrics


def test_a_type_without_a_scored_sample_has_no_mean_rather_than_zero():
    metrics = summarise_rewards([group(None, None)])
    assert "reward/chart" not in metrics and "reward/mean" not in metrics
    assert metrics["rewards/unscored"] == 2


def test_zero_variance_counts_equal_totals_and_lone_samples_by_type():
    metrics = summarise_rewards(
        [group(1.0, 1.0), group(1.0, None), group(1.0, 0.0), group(0.1, 0.2, kind="iou")]
    )
    assert metrics["group/zero_variance_fraction"] == 0.5
    assert metrics["group/zero_variance_fraction/chart"] == pytest.approx(2 / 3)
    assert metrics["group/zero_variance_fraction/iou"] == 0.0


def test_lengths_count_every_response_scored_or_not():
    metrics = summarise_rewards([group(1.0, None, lengths=[10, 30], finished=[True, False])])
    assert metrics["length/response_tokens"] == 20 and metrics["length/unfinished_fraction"] == 0.5


def test_a_summary_has_only_declared_names():
    check_names(
        summarise_rewards(
            [group(1.0, None, kind=kind) for kind in ("matching", "chart", "iou", "open_ended")]
        )
    )
