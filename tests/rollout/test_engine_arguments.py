"""What vLLM is told, and what it then decides by itself: the planner counts on the same."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mixed_r1_ray.config_load import load_config
from mixed_r1_ray.rollout.engine import engine_arguments
from mixed_r1_ray.scale.hardware import DEVICES, GIB, engine_sequences

DRIVERS_NAME = {"H100": "NVIDIA H100 80GB HBM3", "H200": "NVIDIA H200", "A100": "NVIDIA A100-SXM4-80GB"}


def test_how_many_sequences_is_left_to_vllm_unless_it_is_said():
    adapter = SimpleNamespace(engine_kwargs=dict)
    assert engine_arguments(load_config(["conf=internvl_8b"]), adapter)["max_num_seqs"] is None
    said = load_config(["conf=internvl_8b", "rollout.max_concurrent_sequences=64"])
    assert engine_arguments(said, adapter)["max_num_seqs"] == 64


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
