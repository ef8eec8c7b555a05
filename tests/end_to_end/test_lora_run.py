"""A run that trains LoRA adapters: no reference actor, merged weights in the engine, and a checkpoint to go on from."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file

pytestmark = pytest.mark.slow
SETTINGS = ("learner.lora_rank=4", "run.checkpoint_every=1", "run.keep_checkpoints=null", "learner.learning_rate=1e-3")


@pytest.fixture(scope="module")
def run(finished):
    return finished(*SETTINGS, "run.max_steps=2")


def training_lines(run) -> list[dict]:
    return [line for line in run.metrics() if "grad_norm" in line]


def test_the_reference_is_where_the_policy_began(run):
    first, second = training_lines(run)
    assert first["kl/reference"] == 0.0 < second["kl/reference"]
    assert first["mismatch/logprob_abs_max"] <= 1e-4 and second["mismatch/logprob_abs_max"] <= 1e-4
    assert "starting reference" not in run.output


def test_it_goes_on_from_its_checkpoint(run, finished):
    again = finished(*SETTINGS, "run.max_steps=3", "run.resume=auto", folder=run.folder)
    assert "continuing after step 2" in again.output
    steps = [line["step"] for line in training_lines(again)]
    assert steps == [1, 2, 3]
    folder = run.folder / "checkpoints" / "step_000003"
    state = load_file(folder / "optimizer-00000-of-00001.safetensors")
    assert int(state["optimizer_steps"]) == 3
    assert all(".lora_" in name for name in state if name != "optimizer_steps")
    assert not any("lora" in name for name in load_file(folder / "policy" / "model.safetensors"))
