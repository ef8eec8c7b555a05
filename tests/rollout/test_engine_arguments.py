"""What the engine is built with, without building one, and what vLLM then decides: the planner counts on the same."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from mixed_r1_ray.config_load import load_config
from mixed_r1_ray.rollout.engine import engine_arguments
from mixed_r1_ray.scale.hardware import DEVICES, GIB, engine_sequences

DRIVERS_NAME = {"H100": "NVIDIA H100 80GB HBM3", "H200": "NVIDIA H200", "A100": "NVIDIA A100-SXM4-80GB"}


def arguments(*words: str) -> dict:
    adapter = SimpleNamespace(engine_kwargs=dict)  # as far as `engine_arguments` looks at it
    return engine_arguments(load_config(["conf=internvl_8b", *words]), adapter)


def test_a_tensor_parallel_engine_runs_its_ranks_in_processes_of_its_own():
    """Inside a placement group vLLM would ask Ray for actors that nobody planned."""
    found = arguments("rollout.gpus_per_worker=4")
    assert (found["tensor_parallel_size"], found["distributed_executor_backend"]) == (4, "mp")
    assert arguments()["distributed_executor_backend"] is None


def test_without_gpus_nothing_is_said_of_them():
    found = arguments("rollout.gpus_per_worker=0")
    assert "tensor_parallel_size" not in found and found["kv_cache_memory_bytes"] == 2**28


def test_an_engine_on_a_cpu_computes_on_its_threads_though_ray_has_set_one():
    """In an actor torch is there, with the threads that Ray gave it, before the engine is made."""
    code = (
        "import torch; from mixed_r1_ray.config import *; from mixed_r1_ray.rollout import engine;"
        "engine._set_environment(Config(rollout=RolloutConfig(threads=3))); print(torch.get_num_threads())"
    )
    process = [sys.executable, "-c", code]
    done = subprocess.run(process, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120)
    assert done.stdout == "3\n", done.stderr


def test_how_many_sequences_is_left_to_vllm_unless_it_is_said():
    assert arguments()["max_num_seqs"] is None
    assert arguments("rollout.max_concurrent_sequences=64")["max_num_seqs"] == 64


@pytest.mark.parametrize(
    ("name", "memory", "on_cpu"),
    [(name, device.memory, False) for name, device in DEVICES.items()]
    + [("H100", 24 * GIB, False), ("A100", 180 * GIB, False), ("H100", 0, True)],
)
def test_the_plan_counts_on_the_sequences_that_vllm_takes(monkeypatch, name, memory, on_cpu):
    from vllm.engine import arg_utils
    from vllm.usage.usage_lib import UsageContext

    platform = SimpleNamespace(
        get_device_total_memory=lambda: memory, get_device_name=lambda: DRIVERS_NAME[name],
        is_tpu=lambda: False, is_cpu=lambda: on_cpu,
    )  # fmt: skip
    monkeypatch.setattr(arg_utils, "current_platform", platform)
    _, sequences = arg_utils.EngineArgs.get_batch_defaults(world_size=1)
    assert engine_sequences(name, memory) == sequences[UsageContext.LLM_CLASS]
