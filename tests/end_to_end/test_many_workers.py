"""Two learner ranks, two engines and two reward workers do what one of each does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

DOUBLED = (
    "run.max_steps=2",
    "run.checkpoint_every=1",
    "run.keep_checkpoints=null",
    "learner.num_workers=2",
    "rollout.num_workers=2",
    "reward.num_workers=2",
    "data.num_workers=2",
)
SECRETS = {"WANDB_API_KEY": "0123456789abcdef" * 2 + "76543210", "HF_TOKEN": "hf_" + "aB3dE5gH7j" * 3}


@pytest.fixture(scope="module")
def doubled_run(finished):
    """The plain run's first two steps on two of each actor."""
    return finished(*DOUBLED, "tracking.wandb=offline", environment=SECRETS)


def rollouts(run, step: int) -> list[dict]:
    import pyarrow.parquet as pq

    rows = pq.read_table(run.folder / "rollouts" / f"step_{step:06d}.parquet").to_pylist()
    return sorted(rows, key=lambda row: (row["prompt_id"], row["sample_index"]))


def weights(run, step: int) -> dict:
    from safetensors.torch import load_file

    file: Path = run.folder / "checkpoints" / f"step_{step:06d}" / "policy" / "model.safetensors"
    return load_file(file)


def test_samples_do_not_depend_on_which_engine_made_them(plain_run, doubled_run):
    keys = ("prompt_id", "sample_index", "response", "reward_total", "advantage")
    one, two = ([[row[key] for key in keys] for row in rollouts(run, 1)] for run in (plain_run, doubled_run))
    assert one == two


def test_one_and_two_ranks_make_the_same_first_update(plain_run, doubled_run):
    one, two = weights(plain_run, 1), weights(doubled_run, 1)
    assert one.keys() == two.keys()
    assert max(float((one[name] - two[name]).abs().max()) for name in one) <= 1e-5


def test_first_update_moves_the_weights(plain_run):
    before, after = weights(plain_run, 1), weights(plain_run, 2)
    assert max(float((before[name] - after[name]).abs().max()) for name in before) > 1e-5


def test_gradient_norm_and_losses_are_the_same_on_one_and_two_ranks(plain_run, doubled_run):
    one, two = (next(line for line in run.metrics() if "grad_norm" in line) for run in (plain_run, doubled_run))
    for name in ("loss/policy", "grad_norm", "entropy", "kl/reference", "reward/mean", "length/response_tokens"):
        assert one[name] == pytest.approx(two[name], rel=1e-5, abs=1e-6), name


def test_every_rank_writes_its_share_of_the_checkpoint(doubled_run):
    files = (doubled_run.folder / "checkpoints" / "step_000002").glob("optimizer-*")
    assert sorted(file.name for file in files) == [
        "optimizer-00000-of-00002.safetensors",
        "optimizer-00001-of-00002.safetensors",
    ]


def test_two_of_each_end_with_no_process_left(doubled_run):
    assert doubled_run.leftovers() == {}


def test_no_secret_of_the_environment_is_in_the_runs_folder_or_output(doubled_run):
    files = [path for path in doubled_run.folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    for secret in SECRETS.values():
        assert secret not in doubled_run.output
        assert [path for path in files if secret.encode() in path.read_bytes()] == []


def with_checkpoints_up_to(run, step: int, folder: Path) -> Path:
    """A copy of a run as if it had been killed after a checkpoint."""
    shutil.copytree(run.folder, folder, symlinks=True)
    for later in (folder / "checkpoints").glob("step_*"):
        if int(later.name.removeprefix("step_")) > step:
            shutil.rmtree(later)
    return folder


@pytest.fixture(scope="module")
def widened_run(plain_run, finished, tmp_path_factory):
    """The plain run from its first checkpoint on, on two ranks; of its checkpoints the newest and the best stay.

    The second is there too, with one byte changed.
    """
    folder = with_checkpoints_up_to(plain_run, 2, tmp_path_factory.mktemp("widened") / "run")
    shard = folder / "checkpoints" / "step_000002" / "optimizer-00000-of-00001.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    settings = ("run.resume=auto", "run.max_steps=4", "learner.num_workers=2", "run.checkpoint_every=100")
    keeping = ("run.keep_checkpoints=1", "run.keep_best=eval/sampled/mean", "eval.every=1")
    return finished(*settings, *keeping, folder=folder)


@pytest.mark.more_runs
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_continued(widened_run):
    (warning,) = [line for line in widened_run.output.splitlines() if "passed over" in line]
    assert "step_000002" in warning and "optimizer-00000-of-00001.safetensors is damaged" in warning


@pytest.mark.more_runs
def test_two_ranks_continue_what_one_wrote(plain_run, widened_run):
    assert "continuing after step 1" in widened_run.output
    once, again = weights(plain_run, 4), weights(widened_run, 4)
    assert max(float((once[name] - again[name]).abs().max()) for name in once) <= 1e-5


@pytest.mark.more_runs
def test_the_newest_and_the_best_checkpoint_stay(widened_run):
    means = {line["step"]: line["eval/sampled/mean"] for line in widened_run.metrics() if "eval/sampled/mean" in line}
    best = max((2, 3, 4), key=lambda step: (means[step], step))
    kept = {int(path.name.removeprefix("step_")) for path in (widened_run.folder / "checkpoints").glob("step_*")}
    assert kept == {best, 4}


@pytest.mark.slow
def test_one_rank_continues_what_two_wrote(doubled_run, finished, tmp_path):
    folder = with_checkpoints_up_to(doubled_run, 1, tmp_path / "narrowed")
    run = finished(*DOUBLED, "learner.num_workers=1", "run.resume=auto", folder=folder)
    assert "continuing after step 1" in run.output
    once, again = weights(doubled_run, 2), weights(run, 2)
    assert max(float((once[name] - again[name]).abs().max()) for name in once) <= 1e-5


@pytest.mark.slow
def test_two_ranks_continue_from_what_two_ranks_wrote(doubled_run, finished, tmp_path):
    folder = with_checkpoints_up_to(doubled_run, 1, tmp_path / "continued")
    run = finished(*DOUBLED, "run.resume=auto", folder=folder)
    assert "continuing after step 1" in run.output
    once, again = weights(doubled_run, 2), weights(run, 2)
    assert max(float((once[name] - again[name]).abs().max()) for name in once) <= 1e-6
