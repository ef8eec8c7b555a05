"""A run whose weights break stops at that step, leaves no checkpoint of them, and can go on from the one before."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from written_checkpoints import write_checkpoint

SHARD = "optimizer-00000-of-00001.safetensors"


def test_a_learning_rate_that_blows_the_weights_up_stops_the_step_and_leaves_no_checkpoint(start):
    run = start("learner.learning_rate=1e30", "run.checkpoint_every=1", "run.max_steps=3", "data.eval=null")
    assert run.finish() == 1
    assert "error: step 1: after an update with learning rate 5e+29 weight/" in run.output
    assert "numbers of more than 1e+18" in run.output
    assert "learner.learning_rate" in run.output and "Traceback" not in run.output
    assert not list(run.folder.glob("checkpoints/step_*")) and run.training_lines() == {}
    assert run.leftovers() == {}


@pytest.mark.more_runs
def test_broken_checkpoints_of_an_older_version_are_passed_over_by_name(plain_run, finished, tmp_path):
    folder = shutil.copytree(plain_run.folder, tmp_path / "run", symlinks=True)
    for step in (2, 3):  # the one with a number that is not finite, the other as an update at a rate of 1e16 leaves it
        _spoil(folder / "checkpoints", step)
    shutil.rmtree(folder / "checkpoints" / "step_000004")
    run = finished("run.max_steps=4", "run.resume=auto", "run.checkpoint_every=100", folder=folder)
    said = [line for line in run.output.splitlines() if "passed over" in line]
    assert "step_000003" in said[0] and "no finite log-probability" in said[0]
    assert "step_000002" in said[1] and "lm_head.weight holds 1 numbers that are not finite" in said[1]
    assert "continuing after step 1" in run.output
    assert run.training_lines()[4]["learning_rate"] == pytest.approx(plain_run.training_lines()[4]["learning_rate"])


def _spoil(root, step: int) -> None:
    """Writes the step's checkpoint again, as an older version would have."""
    kept = shutil.copytree(root / f"step_{step:06d}", root.parent / "kept")
    (kept / "manifest.json").unlink()
    pieces = load_file(kept / SHARD)
    if step == 2:
        pieces["weight/lm_head.weight"][0] = torch.nan
    else:
        pieces |= {name: piece.sign() * 1e16 for name, piece in pieces.items() if name.startswith("weight/")}
    save_file(pieces, kept / SHARD)
    state = {"step": step, **_state(root / f"step_{step:06d}")}
    write_checkpoint(root, step, lambda folder: shutil.copytree(kept, folder, dirs_exist_ok=True), state)
    shutil.rmtree(kept)


def _state(checkpoint) -> dict:
    from mixed_r1_ray.runtime.checkpoints import verify

    return verify(checkpoint).state
