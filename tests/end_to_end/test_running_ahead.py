"""Generation one batch ahead, several updates a batch and refills, all at once on the real stack: schedule and resume."""

from __future__ import annotations

import shutil

import pytest

SETTINGS = (
    "algo.max_staleness=1",
    "algo.rollout_correction=token",
    "algo.num_minibatches=2",
    "algo.dynamic_sampling=true",
    "algo.max_refills=1",
    "guard.probe_every=2",
    "data.eval=null",
    "run.max_steps=4",
    "run.checkpoint_every=2",
    "run.keep_checkpoints=null",
)


@pytest.fixture(scope="module")
def ahead_run(finished):
    """Four steps, of which every batch but the first is generated while the one before is learned from."""
    return finished(*SETTINGS)


@pytest.fixture(scope="module")
def continued_run(ahead_run, finished, tmp_path_factory):
    """The same run from its checkpoint of step 2, as if it had been killed before the next."""
    folder = tmp_path_factory.mktemp("continued") / "run"
    shutil.copytree(ahead_run.folder, folder, symlinks=True)
    shutil.rmtree(folder / "checkpoints" / "step_000004")
    run = finished(*SETTINGS, "run.resume=auto", folder=folder)
    assert "continuing after step 2" in run.output
    assert run.leftovers() == {}
    return run


def rollouts(run, step: int) -> list[dict]:
    import pyarrow.parquet as pq

    return pq.read_table(run.folder / "rollouts" / f"step_{step:06d}.parquet").to_pylist()


def test_every_batch_has_the_weights_that_the_schedule_says(ahead_run):
    lines = ahead_run.training_lines()
    assert [lines[step]["staleness/max"] for step in (1, 2, 3, 4)] == [0, 1, 1, 1]
    refilled = set()
    for step in (1, 2, 3, 4):
        versions = {(row["weight_version_oldest"], row["weight_version_newest"]) for row in rollouts(ahead_run, step)}
        ahead, now = max(0, step - 2), step - 1
        assert {(ahead, ahead)} <= versions <= {(ahead, ahead), (now, now)}  # refills have the weights of now
        refilled |= versions - {(ahead, ahead)}
    assert refilled  # else the refills of this run gave nothing to look at
    assert 0 < lines[4]["staleness/mean"] <= 1


def test_stale_samples_differ_from_the_trainer_and_current_ones_do_not(ahead_run):
    lines = ahead_run.training_lines()
    assert lines[1]["mismatch/logprob_abs_max"] <= 1e-4
    assert all(lines[step]["mismatch/logprob_abs_max"] > 1e-3 for step in (2, 3, 4))


def test_start_up_proof_is_repeated_while_samples_prove_nothing(ahead_run):
    assert ahead_run.output.count("log-probabilities agree to") >= 3  # at the start, after steps 2 and 4


def test_each_batch_is_two_updates_and_keeps_its_mixture(ahead_run):
    for step, line in ahead_run.training_lines().items():
        assert line["updates"] == 2
        assert line["dynamic_sampling/generated_groups"] >= 8
        kinds = [row["reward_type"] for row in rollouts(ahead_run, step)]
        assert len(kinds) == 8 * 4 and {kinds.count(kind) for kind in kinds} == {8}


def test_no_prompt_comes_twice_within_an_epoch(ahead_run):
    seen = [prompt for step in (1, 2, 3, 4) for prompt in {row["prompt_id"] for row in rollouts(ahead_run, step)}]
    assert len(seen) == len(set(seen)) == 4 * 8


@pytest.mark.more_runs
def test_curve_of_a_continued_run_is_the_curve_without_the_break(ahead_run, continued_run):
    whole, continued = ahead_run.training_lines(), continued_run.training_lines()
    assert (ahead_run.folder / "checkpoints" / "step_000002" / "ahead.parquet").is_file()
    for step in (1, 2, 3, 4):
        assert continued[step].keys() == whole[step].keys()
        for name, value in whole[step].items():
            assert continued[step][name] == pytest.approx(value, rel=1e-5, abs=1e-6), (step, name)


@pytest.mark.more_runs
def test_optimizer_counts_every_update_also_after_the_break(ahead_run, continued_run):
    from safetensors.torch import load_file

    for run in (ahead_run, continued_run):
        shard = run.folder / "checkpoints" / "step_000004" / "optimizer-00000-of-00001.safetensors"
        assert int(load_file(shard)["optimizer_steps"]) == 8


def test_run_ahead_ends_with_no_process_left(ahead_run):
    assert ahead_run.leftovers() == {}
