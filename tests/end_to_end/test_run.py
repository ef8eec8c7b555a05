"""A run from its start to its end, with the real Ray, vLLM and DeepSpeed: what it leaves behind, and that it is true."""

from __future__ import annotations

from collections import defaultdict
from math import sqrt
from statistics import fmean

import pytest

from mixed_r1_ray.runtime.run_dir import OWN_FILES

TYPES = ("matching", "chart", "iou", "open_ended")
STEP_METRICS = {
    "reward/mean", "reward/format", *(f"reward/{kind}" for kind in TYPES), "kl/reference", "loss/policy", "entropy",
    "grad_norm", "clip/fraction", "length/response_tokens", "group/zero_variance_fraction", "mismatch/logprob_abs_max",
    "mismatch/kl", "staleness/max", "time/step_s", "time/generate_s", "time/reward_s", "time/reference_s",
    "time/learn_s", "time/sync_s", "time/idle_s", "throughput/samples_per_s", "throughput/tokens_per_s",
    "rewards/unscored", "data/bad_rows",
}
STD_FLOOR = 0.05  # algo.std_floor of conf/quickstart.yaml
EVAL_METRICS = {
    f"eval/{mode}/{kind}{part}" for mode in ("greedy", "sampled") for kind in TYPES for part in ("", "/se")
}


@pytest.fixture(scope="module")
def steps(plain_run) -> list[dict]:
    """The metrics of the training steps."""
    return [line for line in plain_run.metrics() if "reward/mean" in line]


def rollouts(run, step: int) -> list[dict]:
    """The rows of one step's rollout file, read without our own reader."""
    import pyarrow.parquet as pq

    return pq.read_table(run.folder / "rollouts" / f"step_{step:06d}.parquet").to_pylist()


def by_prompt(rows: list[dict]) -> dict[str, list[dict]]:
    groups = defaultdict(list)
    for row in rows:
        groups[row["prompt_id"]].append(row)
    return groups


def test_run_leaves_the_files_of_the_design_and_no_others(plain_run):
    files = {path.relative_to(plain_run.folder).as_posix() for path in plain_run.folder.rglob("*") if path.is_file()}
    assert {"config.yaml", "metrics.jsonl", "report.html"} <= files
    assert {f"rollouts/step_{step:06d}.parquet" for step in range(1, 5)} <= files
    assert {f"checkpoints/step_{step:06d}/policy/model.safetensors" for step in range(1, 5)} <= files
    assert (plain_run.folder / "checkpoints" / "latest").resolve().name == "step_000004"
    ours = {path for pattern in OWN_FILES for path in plain_run.folder.glob(pattern)}
    strangers = {name for name in files if not any(plain_run.folder / name == p or p in (plain_run.folder / name).parents
                                                   for p in ours)}
    assert strangers == set()


def test_checkpointed_policy_is_an_ordinary_checkpoint(plain_run):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = plain_run.folder / "checkpoints" / "latest" / "policy"
    _, problems = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not any(problems.values()), problems
    assert AutoProcessor.from_pretrained(folder).tokenizer is not None


def test_report_is_one_page_that_needs_no_network(plain_run):
    page = (plain_run.folder / "report.html").read_text(encoding="utf-8")
    assert "src=\"http" not in page and "href=\"http" not in page and "@import" not in page
    assert "data:image/" in page


def test_every_metric_of_the_design_is_on_every_line_of_a_step(steps):
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    for line in steps:
        assert STEP_METRICS - line.keys() == set()
        assert any(name.startswith("reward/source/") for name in line)
        assert all(line[name] is not None for name in line)


def test_held_out_split_is_scored_before_the_first_step_and_after_the_last(plain_run):
    lines = plain_run.metrics()
    evaluations = [number for number, line in enumerate(lines) if "eval/greedy/matching" in line]
    assert evaluations == [0, len(lines) - 1]
    assert [lines[number]["step"] for number in evaluations] == [0, 4]
    for number in evaluations:
        assert EVAL_METRICS - lines[number].keys() == set()


def test_the_time_that_a_checkpoint_took_from_training_is_told(plain_run):
    stops = {line["step"]: line["time/checkpoint_s"] for line in plain_run.metrics() if "time/checkpoint_s" in line}
    assert stops.keys() == {2, 3, 4} and all(seconds > 0 for seconds in stops.values())


def test_engine_and_trainer_agree_at_every_step(steps):
    assert max(line["mismatch/logprob_abs_max"] for line in steps) <= 1e-4


def test_policy_equals_reference_until_the_first_update(steps):
    assert abs(steps[0]["kl/reference"]) <= 1e-6
    assert steps[-1]["kl/reference"] > 1e-5  # and has left it since: the metric is alive


def test_every_sample_comes_from_the_current_weights(plain_run, steps):
    assert {line["staleness/max"] for line in steps} == {0}
    for step in (1, 4):
        versions = {(row["weight_version_oldest"], row["weight_version_newest"]) for row in rollouts(plain_run, step)}
        assert versions == {(step - 1, step - 1)}


def test_metrics_say_of_the_rollouts_what_the_rollout_file_says(plain_run, steps):
    for line in steps:
        rows = rollouts(plain_run, line["step"])
        assert len(rows) == 8 * 4
        assert line["reward/mean"] == pytest.approx(fmean(row["reward_total"] for row in rows))
        assert line["reward/format"] == pytest.approx(fmean(row["reward_format"] for row in rows))
        assert line["length/response_tokens"] == pytest.approx(fmean(row["response_tokens"] for row in rows))
        for kind in TYPES:
            tasks = [row["reward_task"] for row in rows if row["reward_type"] == kind]
            assert line[f"reward/{kind}"] == pytest.approx(fmean(tasks))
        flat = [len({row["reward_total"] for row in group}) == 1 for group in by_prompt(rows).values()]
        assert line["group/zero_variance_fraction"] == pytest.approx(fmean(flat))


def test_advantages_are_the_groups_standardised_rewards(plain_run):
    spread = 0
    for step in range(1, 5):
        for group in by_prompt(rollouts(plain_run, step)).values():
            totals = [row["reward_total"] for row in group]
            assert totals == pytest.approx([row["reward_task"] + 0.5 * row["reward_format"] for row in group])
            mean = fmean(totals)
            deviation = sqrt(sum((total - mean) ** 2 for total in totals) / (len(totals) - 1))
            divisor = max(deviation, STD_FLOOR) + 1e-6
            expected = [(total - mean) / divisor for total in totals]
            assert [row["advantage"] for row in group] == pytest.approx(expected, abs=1e-5)
            spread += deviation > 0
    assert spread > 0  # else nothing was compared but zeros


def test_same_seed_draws_the_batches_without_repeating_a_prompt_within_an_epoch(plain_run):
    seen = [prompt for step in range(1, 5) for prompt in by_prompt(rollouts(plain_run, step))]
    assert len(seen) == len(set(seen)) == 4 * 8


def test_run_ends_with_no_process_left(plain_run):
    assert plain_run.leftovers() == {}


def test_all_that_listens_listens_on_loopback_alone(plain_run):
    assert plain_run.listened_at == {"127.0.0.1"}


def test_threads_that_wait_for_each_other_soon_sleep_in_every_actor(plain_run):
    for role in ("RolloutWorker", "LearnerWorker", "ReferenceWorker", "DataWorker"):
        assert any(role in command for command in plain_run.waits), role
    assert set(plain_run.waits.values()) == {("PASSIVE", "2000")}, plain_run.waits


def test_tiny_run_stays_below_the_memory_bound(watched_run):
    _, memory = watched_run
    print(f"peak memory of the tiny run: {max(memory) / 2**30:.2f} GiB")
    assert 0.5 * 2**30 < max(memory) <= 6 * 2**30


def test_other_model_family_runs_to_its_end(finished):
    run = finished("model.path=tiny:qwen2_5_vl", "run.max_steps=2", "tiny.warm_start_steps=4")
    steps = [line for line in run.metrics() if "reward/mean" in line]
    assert [line["step"] for line in steps] == [1, 2]
    assert max(line["mismatch/logprob_abs_max"] for line in steps) <= 1e-4
    assert abs(steps[0]["kl/reference"]) <= 1e-6
    assert run.leftovers() == {}


@pytest.mark.slow
def test_quickstart_at_its_own_size_stays_within_six_gib(start):
    size = ("tiny.warm_start_steps=20", "cluster.num_cpus=2")
    run = start("run.max_steps=6", "eval.prompts_per_type=100", size=size)
    from real_runs import memory_watched

    with memory_watched(run) as memory:
        assert run.finish(1800) == 0, run.output[-6000:]
    print(f"peak memory of the quickstart: {max(memory) / 2**30:.2f} GiB")
    assert max(memory) <= 6 * 2**30
