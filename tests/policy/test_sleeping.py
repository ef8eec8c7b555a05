"""A real ZeRO-3 rank between its turns: nothing of it is left on its device, and all of it is there again afterwards."""

from __future__ import annotations

import gc
import multiprocessing
from dataclasses import replace

import numpy as np
import pytest
import torch

from mixed_r1_ray.config import Config
from mixed_r1_ray.config_load import load_config
from mixed_r1_ray.scale.architecture import read_architecture
from mixed_r1_ray.scale.memory import learner_footprint
from mixed_r1_ray.scale.workload import Workload
from mixed_r1_ray.vlm.tiny import save_tiny

TURNS = 10


def _alive() -> dict[int, int]:
    """Bytes by address of every storage of this process that a Python tensor holds."""
    gc.collect()
    tensors = [each for each in gc.get_objects() if isinstance(each, torch.Tensor)]
    return {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors if each.numel()}


def _state(learner) -> list[torch.Tensor]:
    zero3 = learner.engine.optimizer
    moments = [state[name] for state in zero3.optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    weights = [parameter.ds_tensor for parameter in learner.policy.parameters()]
    return [*weights, zero3.lp_param_buffer, *zero3.fp16_partitioned_groups_flat, *zero3.fp32_partitioned_groups_flat, *moments]


def _update(learner) -> None:
    inputs = learner.adapter.encode(learner.adapter.prompt_text("what is it?", 1), [np.zeros((56, 56, 3), np.uint8)])
    for boundary in (False, True):
        learner.engine.set_gradient_accumulation_boundary(boundary)
        logprobs, _ = learner.engine(learner.policy.pack([inputs], [[np.arange(3, 30, dtype=np.int32)]]))
        learner.engine.backward(logprobs.mean())
    learner.engine.step()


def _take_turns(config: Config, address: str, answers) -> None:
    from mixed_r1_ray.environment import prepare_environment
    from mixed_r1_ray.policy.learner import PolicyLearner, Rendezvous

    prepare_environment(config)
    learner = PolicyLearner(config, Rendezvous(address, 0, 1))
    zero3, found = learner.engine.optimizer, []
    for _ in range(TURNS):
        last = _state(learner)[-1].clone()
        _update(learner)
        before, steps = [tensor.clone() for tensor in _state(learner)], learner.optimizer_steps()
        shared = {parameter.ds_tensor.untyped_storage().data_ptr() for parameter in learner.policy.parameters()}
        learner.sleep()
        buffers = {piece.data_ptr() for piece in learner.host._pieces}
        copies = {tensor.data_ptr() for tensor in (*before, last)}
        left = {address: size for address, size in _alive().items() if address not in buffers | copies}
        learner.wake()
        after = _state(learner)
        again = {parameter.ds_tensor.untyped_storage().data_ptr() for parameter in learner.policy.parameters()}
        found.append(
            {
                "same": all(map(torch.equal, before, after)) and steps == learner.optimizer_steps(),
                "shared": len(shared) == len(again),
                "gradients": float(zero3.grad_partitions_flat_buffer.abs().max()),
                "held": learner.host.num_bytes,
                "buffers": sorted(buffers),
                "left": sum(left.values()) if not zero3.offload_optimizer else 0,
                "fused": zero3.optimizer.param_groups[0]["fused"],
                "threads": torch.get_num_threads(),
                "moved": float((before[-1] - last).abs().max()),
            }
        )
    answers.put(found)


@pytest.mark.parametrize("offload", ["none", pytest.param("optimizer", marks=pytest.mark.slow)])
def test_ten_turns_of_a_real_rank(tmp_path, offload):
    save_tiny(tmp_path / "model", "internvl", ["what is it?"])
    words = [f"model.path={tmp_path / 'model'}", "model.dtype=bfloat16", "learner.freeze=vision"]
    config = load_config(["conf=quickstart", *words, f"learner.offload={offload}", "learner.learning_rate=0.01"])
    config = replace(config, learner=replace(config.learner, cpus_per_worker=2.0, threads=None))
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.Queue()
    process = spawn.Process(target=_take_turns, args=(config, f"file://{tmp_path}/rendezvous", answers))
    process.start()
    try:
        turns = answers.get(timeout=180)
    finally:
        process.join(10)
        process.kill()
    architecture = read_architecture(config.model.path)
    trained = architecture.trained("vision")
    kept = 2 * architecture.parameters + (12 * trained if offload == "none" else 0)  # bfloat16; float32 copy, two moments
    planned = learner_footprint(config, architecture, Workload.at_most(config, architecture)).kept
    for turn in turns:
        assert turn["same"] and turn["shared"] and turn["moved"] > 0
        assert turn["held"] == kept == planned and turn["buffers"] == turns[0]["buffers"]
        assert turn["fused"] and turn["threads"] == 2
        assert turn["left"] < 1000  # bytes: what is no parameter
        assert turn["gradients"] == 0 or offload == "optimizer"
