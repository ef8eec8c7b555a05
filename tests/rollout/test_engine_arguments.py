"""What the engine is built with, without building one."""

from __future__ import annotations

import os
import subprocess
import sys

from mixed_r1_ray.config_load import load_config
from mixed_r1_ray.rollout.engine import engine_arguments


class NoLimits:
    """An adapter as far as `engine_arguments` looks at it."""

    def engine_kwargs(self) -> dict:
        return {}


def arguments(*words: str) -> dict:
    return engine_arguments(load_config(["conf=internvl_8b", *words]), NoLimits())


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
