"""Planned bytes against bytes counted in the real parts: the forward's kept tensors, two ZeRO-3 ranks."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace

import numpy as np
import pytest
import torch

from mixed_r1_ray.config import Config, ModelConfig
from mixed_r1_ray.config_load import load_config
from mixed_r1_ray.scale.architecture import read_architecture
from mixed_r1_ray.scale.hardware import GIB
from mixed_r1_ray.scale.memory import (
    REDUCE_BUCKET,
    SCORES_BYTES,
    PackedRow,
    footprints,
    kept_bytes,
    object_store_bytes,
    scores_bytes,
)
from mixed_r1_ray.vlm.tiny import save_tiny


def planned(*words: str, gib: float = 80):
    config = load_config(["conf=internvl_8b", *words])
    return footprints(config, read_architecture(config.model.path), gib * GIB)


def counted(policy, packed) -> int:
    """Bytes of distinct storages, parameters left out, that autograd keeps of a forward."""
    own, kept, tensors = {p.untyped_storage().data_ptr() for p in policy.parameters()}, {}, []

    def keep(tensor):
        storage = tensor.untyped_storage()
        tensors.append(tensor)  # or its address would be used again
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        policy(packed)
    return sum(kept.values())


@pytest.mark.parametrize("family", ["internvl", "qwen2_5_vl"])
@pytest.mark.parametrize(("dtype", "number"), [("bfloat16", 2), ("float32", 4)])
def test_a_layers_kept_bytes_are_those_that_autograd_keeps(tmp_path, family, dtype, number):
    from mixed_r1_ray.policy.loading import load_policy
    from mixed_r1_ray.policy.packing import pack

    save_tiny(tmp_path, family, ["what is it?"])
    policy = load_policy(ModelConfig(path=str(tmp_path), dtype=dtype), 1.0, "vision+projector")
    inputs = policy.adapter.encode(policy.adapter.prompt_text("what is it?", 1), [np.zeros((56, 56, 3), np.uint8)])
    language, found, rows = read_architecture(str(tmp_path)).language, [], []
    for length in (256, 512):  # the difference leaves out what does not grow with the responses
        packed = pack([inputs], [[np.full(length, 5, np.int32)] * 4], policy.adapter, policy.model)
        found.append(counted(policy, packed))
        rows.append(PackedRow(len(inputs.input_ids), 4, length))
    # Behind them: the states that predict, entropies, and where tokens and states are found.
    tail = [row.scored * (number * language.width + 4 + 8 + 8) for row in rows]
    layers = [kept_bytes(language, row, number, checkpointing=False) for row in rows]
    assert found[1] - found[0] == pytest.approx(layers[1] - layers[0] + tail[1] - tail[0], rel=0.02)


def _count_rank(rank: int, config: Config, address: str, answers) -> None:
    from mixed_r1_ray.environment import prepare_environment
    from mixed_r1_ray.policy.learner import PolicyLearner, Rendezvous

    prepare_environment(config)
    learner = PolicyLearner(config, Rendezvous(address, rank, 2))
    zero3 = learner.engine.optimizer
    states = [state[name] for state in zero3.optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    answers.put(
        {
            "weights": sum(parameter.ds_tensor.nbytes for parameter in learner.policy.parameters()),
            "gradients": zero3.grad_partitions_flat_buffer.nbytes,
            "reduced": 2 * sum(bucket.buffer.nbytes for bucket in zero3.ipg_buckets.values()),  # and a copy
            "optimizer": sum(tensor.nbytes for tensor in (*zero3.fp32_partitioned_groups_flat, *states)),
        }
    )


@pytest.mark.parametrize("offload", ["none", pytest.param("optimizer", marks=pytest.mark.slow)])
def test_shards_of_two_zero3_ranks_are_as_large_as_planned(tmp_path, offload):
    save_tiny(tmp_path / "model", "internvl", ["what is it?"])
    config = load_config(["conf=quickstart", f"model.path={tmp_path / 'model'}", "model.dtype=bfloat16"])
    config = replace(config, learner=replace(config.learner, num_workers=2, freeze="vision", offload=offload))
    spawn = multiprocessing.get_context("spawn")
    answers, address = spawn.Queue(), f"file://{tmp_path}/rendezvous"
    ranks = [spawn.Process(target=_count_rank, args=(rank, config, address, answers)) for rank in range(2)]
    try:
        for process in ranks:
            process.start()
        counts = [answers.get(timeout=180) for _ in ranks]
    finally:
        for process in ranks:
            process.join(10)
            process.kill()
    held = footprints(config, read_architecture(config.model.path), 0)["learner"].host
    for count in counts:  # each rank's share of a tensor is rounded up
        assert {part: held[part] for part in count} == pytest.approx(count, rel=0.01)


def test_an_8b_learner_holds_eighteen_bytes_a_trained_parameter_over_its_ranks():
    trained, frozen = 7_640_361_472, 304_012_288
    for ranks in (1, 8):
        parts = planned(f"learner.num_workers={ranks}")["learner"].device
        state = parts["weights"] + parts["gradients"] + parts["optimizer"]
        assert state == pytest.approx((18 * trained + 2 * frozen) / ranks)


def test_what_a_learner_lends_counts_where_it_is_more_than_an_update_takes():
    shared = ("cluster.share_gpus=true", "rollout.num_workers=1", "learner.num_workers=1")
    shared += ("learner.microbatch_tokens=8192",)
    by_store = planned(*shared, "rollout.weight_transfer=object_store")["learner"].device
    lending = planned(*shared)["learner"].device
    working = sum(size for part, size in by_store.items() if part not in ("weights", "gradients", "optimizer"))
    assert lending["weights lent"] == pytest.approx(2 * 7_640_361_472 - working) and lending["weights lent"] > 0
    assert "weights lent" not in by_store
    small = planned(*shared, "learner.microbatch_tokens=131072")["learner"].device
    assert small["weights lent"] == 0


def test_offload_moves_gradients_and_optimizer_to_the_host():
    here, there = planned()["learner"], planned("learner.offload=optimizer")["learner"]
    assert set(here.device) - set(there.device) == {"gradients", "optimizer"}
    assert there.host["optimizer"] == here.device["optimizer"] and there.device["weights"] == here.device["weights"]
    assert there.host["float32 gradients"] == here.device["optimizer"] / 3


def test_adapters_are_all_that_has_gradients_and_state(tmp_path):
    from mixed_r1_ray.policy.loading import load_policy
    from mixed_r1_ray.policy.lora import add_lora

    save_tiny(tmp_path, "internvl", ["what is it?"])
    policy = load_policy(ModelConfig(path=str(tmp_path)), 1.0)
    add_lora(policy.model, 4, 8.0, seed=0)
    trained = sum(parameter.numel() for parameter in policy.parameters() if parameter.requires_grad)
    assert read_architecture(str(tmp_path)).trained("vision+projector", lora_rank=4) == trained
    parts = planned("learner.lora_rank=16", "learner.freeze=vision+projector")
    adapters = read_architecture("OpenGVLab/InternVL3-8B-hf").language.lora_parameters(16)
    assert parts["learner"].device["optimizer"] == 12 * adapters / 4
    assert parts["learner"].device["weights"] == 2 * (7_944_373_760 + adapters) / 4
    assert "reference" not in parts


def test_kv_cache_is_what_the_fraction_leaves():
    weights = 2 * 7_944_373_760
    cache = planned()["rollout"].device["KV cache"]
    assert cache == pytest.approx(0.85 * 80 * GIB - weights - 3 * GIB)
    tensor_parallel = planned("rollout.gpus_per_worker=2")["rollout"].device
    assert tensor_parallel["weights"] == weights / 2
    assert read_architecture("OpenGVLab/InternVL3-8B-hf").language.kv_bytes(2) == 2 * 28 * 4 * 128 * 2
    assert planned(gib=20)["rollout"].device["KV cache"] < 0


def test_without_gpus_everything_lies_on_the_host():
    parts = planned("rollout.gpus_per_worker=0", "learner.gpus_per_worker=0", "rollout.kv_cache_gib=3")
    assert parts["rollout"].device == parts["learner"].device == {}
    assert parts["rollout"].host["KV cache"] == 3 * GIB and parts["learner"].host["optimizer"] > 0
    assert parts["reference"].device["weights"] == 2 * 7_944_373_760


def test_no_reference_no_footprint():
    assert "reference" not in planned("algo.beta=0")


def test_scores_are_those_of_two_chunks_or_of_all_tokens_where_they_are_few():
    from mixed_r1_ray.policy import head, learner

    language = read_architecture("OpenGVLab/InternVL3-2B-hf").language
    assert scores_bytes(language, 100) == 2 * 4 * 100 * 151674
    assert SCORES_BYTES == head.CHUNK_BYTES and REDUCE_BUCKET == learner.REDUCE_BUCKET
    assert scores_bytes(language, 4000) == scores_bytes(language, 8000) == 2 * head.CHUNK_BYTES


def test_the_heads_gradient_is_summed_in_float32_where_it_is_trained():
    head = 151_674 * 3584
    assert planned()["learner"].device["head gradient"] == (4 + 2) * head
    assert "head gradient" not in planned("learner.lora_rank=16", "learner.freeze=vision+projector")["learner"].device


def test_object_store_holds_the_weights_and_two_batches_of_pictures():
    config = load_config(["conf=internvl_8b"])
    architecture = read_architecture(config.model.path)
    one, four = (object_store_bytes(config, architecture, nodes) for nodes in (1, 4))
    assert one["weights"] == four["weights"] == 2 * 7_944_373_760
    tiles = 13 * 448 * 448 * 3
    assert one["pictures"] == 2 * 128 * (4 * tiles + tiles) == 4 * four["pictures"]
