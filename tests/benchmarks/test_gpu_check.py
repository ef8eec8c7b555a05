"""The check of a GPU as far as it needs none: its shapes, its arithmetic, and one real run of a tiny shape on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_architecture import SMALL

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

from gpu_check_report import Target, device_named, figures_of, model_flops, verdicts  # noqa: E402
from loop import Step  # noqa: E402
from random_checkpoint import build_random  # noqa: E402

from mixed_r1_ray.config_load import load_config  # noqa: E402


@pytest.mark.parametrize(("shape", "billions"), [("qwen2_5_vl_3b", 3.7546), ("internvl_2b", 2.0886)])
def test_shapes_have_the_published_number_of_parameters(shape, billions):
    """3,754,622,976 and about 2.1 billion, by the published checkpoints."""
    model, processor = build_random(shape, ["what is it?"], torch.device("meta"))
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e9 == pytest.approx(billions, abs=1e-3)
    assert model.config.image_token_id < len(processor.tokenizer)


def test_an_update_is_three_forwards_of_the_language_model_and_one_of_a_frozen_tower():
    # one prompt of 8 tokens, two responses of 10: 28 tokens through 320 parameters, 20 through the head's 40;
    # pairs: 8 * 8 / 2 + 20 * 8 + 2 * 10 * 10 / 2 = 292. Tower: 2 * 4 patches; projector: 2 tokens
    language = 2 * 320 * 28 + 2 * 40 * 20 + 4 * 4 * 2 * 292
    vision = 2 * 100 * 8 + 2 * 20 * 2 + 4 * 4 * 1 * 8 * 4
    assert model_flops(SMALL, 8, 2, [10, 10], "vision") == 3 * language + vision
    assert model_flops(SMALL, 8, 2, [10, 10], "none") == 3 * (language + vision)


def test_figures_are_per_second_and_say_what_was_not_there():
    times = {"step": 10.0, "generate": 4.0, "learn": 5.0, "sync": 0.5, "reference": 0.25, "reward": 0.0, "idle": 0.25}
    metrics = {f"time/{name}_s": seconds for name, seconds in times.items()}
    metrics |= {"mismatch/logprob_abs_max": 0.01, "mismatch/logprob_abs_q999": 0.005, "mismatch/logprob_abs_mean": 0.001}
    metrics |= {"mismatch/kl": 1e-5}
    step = Step(10.0, 0.0, metrics, {"a": (10, 10), "b": (10, 10)}, prompt_tokens=16)
    colocated = replace(step, metrics=metrics | {"memory/peak_learner_gib": 3.0, "memory/peak_rollout_gib": 2.0})
    config = load_config(["conf=quickstart", "model.dtype=bfloat16", "learner.freeze=vision", "model.max_tiles=1"])
    figures = figures_of(config, SMALL, [step, colocated], 1e6, None)
    assert figures["generated_tokens_per_s"] == 40 / 4 and figures["learned_tokens_per_s"] == (40 + 16) / 5
    assert figures["sync_gb_per_s"] == pytest.approx(2 * (SMALL.parameters - 100) / 1e9 / 0.5)
    assert figures["device_copy_s"] == pytest.approx(2 * (SMALL.parameters - 100) / 1e6)
    assert figures["neither_generation_nor_learning_fraction"] == pytest.approx(0.1)
    assert figures["memory_peak_gib"] == figures["memory_peak_learner_gib"] == 3
    assert "learn_mfu" not in figures
    known = figures_of(config, SMALL, [step], 1e6, 1e6)
    assert known["learn_mfu"] == pytest.approx(2 * model_flops(SMALL, 8, 1, [10, 10], "vision") / 5 / 1e6)
    assert "memory_peak_gib" not in known


def test_targets_are_met_missed_or_not_measured():
    assert Target("a", 0.3).verdict({"a": 0.3}) == "met" and Target("a", 0.3).verdict({"a": 0.31}) == "not met"
    assert Target("b", 0.35, at_least=True).verdict({"b": 0.34}) == "not met"
    assert set(verdicts({}).values()) == {"not measured"}


@pytest.mark.parametrize(
    ("name", "known"),
    [("NVIDIA H200", "H200"), ("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA A100-SXM4-80GB", "A100"), ("NVIDIA L40S", None)],
)
def test_a_card_is_known_by_the_drivers_name(name, known):
    assert device_named(name) == known


def test_without_a_gpu_the_job_says_so_and_ends():
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(
        ["bash", "jobs/gpu_check.sh"], cwd=ROOT, capture_output=True, text=True, timeout=120, env=environment
    )
    assert ended.returncode == 2 and "finds no GPU" in ended.stderr and "error: " in ended.stderr


@pytest.mark.slow
def test_the_whole_check_of_a_tiny_shape(tmp_path):
    found = tmp_path / "found.json"
    command = [sys.executable, "benchmarks/gpu_check.py", "--shapes", "tiny", "--work", tmp_path / "work", "--json", found]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True, timeout=600, env=environment)
    report = json.loads(found.read_text())
    figures, engine = report["figures"]["tiny"], report["engines"]["tiny"]
    assert (engine["device"], engine["model_runner"], engine["attention"]) == ("CPU", "V1", "CPU_ATTN")
    assert figures["parity_logprob_abs_mean"] < figures["parity_logprob_abs_max"] < 0.05 and figures["response_tokens"] == 2 * 4 * 16
    assert figures["generated_tokens_per_s"] > 0 and figures["plain_vllm_tokens_per_s"] > 0 and figures["sync_gb_per_s"] > 0
    assert set(report["targets_3b_on_h200"].values()) == {"not measured"} and report["versions"]["torch"]
