"""What a placement, stated or Ray's own, tells the memory plan and the step-time model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mixed_r1_ray.cluster import _node
from mixed_r1_ray.cluster_plan import make_plan
from mixed_r1_ray.config_load import load_config
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.estimate import step_model
from mixed_r1_ray.memory_plan import check_memory
from mixed_r1_ray.placement import place, stated_nodes
from mixed_r1_ray.scale.architecture import read_architecture
from mixed_r1_ray.scale.hardware import GIB


def placed(*words: str):
    config = load_config(["conf=internvl_8b", *words])
    return config, place(make_plan(config), stated_nodes(config))


def layout(*words: str):
    config, placement = placed(*words)
    return step_model(config, read_architecture(config.model.path), placement).layout


def test_on_one_node_nothing_goes_over_the_network():
    found = layout("cluster.nodes=1")
    assert (found.learner_nodes, found.engine_nodes_elsewhere) == (1, 0)
    assert found.cache_bytes == pytest.approx((0.85 * 80 - 3) * GIB - 2 * 7_944_373_760)


def test_engines_beside_the_first_learner_need_no_transfer():
    assert layout("cluster.nodes=2", "rollout.num_workers=11").engine_nodes_elsewhere == 1
    spread = layout("cluster.nodes=4", "learner.placement=spread")
    assert (spread.learner_nodes, spread.engine_nodes_elsewhere) == (4, 2)  # three engines, one beside rank 0


def test_an_engine_over_two_gpus_has_the_cache_of_both():
    one, two = (layout("cluster.nodes=2", f"rollout.gpus_per_worker={gpus}").cache_bytes for gpus in (1, 2))
    assert two == pytest.approx(2 * one + 2 * 7_944_373_760)  # each holds half of the weights


def test_a_cluster_that_does_not_say_its_gpus_memory_is_not_judged():
    config, placement = placed("cluster.nodes=1", "learner.num_workers=1", "rollout.num_workers=1")
    silent = replace(placement, nodes=tuple(replace(node, gpu_bytes=None) for node in placement.nodes))
    assert check_memory(config, silent) == []
    with pytest.raises(UserError, match="GPU of learner: learner weights 14.8"):
        check_memory(config, placement)


def ray_node(**resources: float) -> dict:
    return {"NodeManagerAddress": "10.0.0.7", "NodeID": "abcdef0123", "Alive": True, "Resources": resources}


def test_a_ray_node_is_read_with_the_memory_of_its_kind_of_gpu():
    config = load_config(["conf=internvl_8b"])
    read = _node(ray_node(CPU=64, GPU=8, **{"accelerator_type:H200": 1}, memory=1e12, object_store_memory=2e11), config)
    assert (read.name, read.cpus, read.gpus) == ("10.0.0.7-abcdef", 64, 8)
    assert (read.gpu_bytes, read.host_bytes, read.object_store_bytes) == (140 * GIB, 1e12, 2e11)
    assert read.ray_id == "abcdef0123"


def test_an_unknown_kind_of_gpu_has_the_memory_that_is_stated_or_none():
    node = ray_node(CPU=8, GPU=1, **{"accelerator_type:B300": 1})
    assert _node(node, load_config(["conf=internvl_8b"])).gpu_bytes is None
    assert _node(node, load_config(["conf=internvl_8b", "cluster.gpu_memory_gib=288"])).gpu_bytes == 288 * GIB
    assert _node(ray_node(CPU=8), load_config(["conf=internvl_8b"])).gpus == 0
