"""The step-time model of a placement: what of the nodes and their GPUs it depends on."""

from __future__ import annotations

from dataclasses import replace

from .config import Config
from .placement import Placement, gpu_bytes
from .scale.architecture import Architecture
from .scale.hardware import DEVICES
from .scale.memory import rollout_footprint
from .scale.step_time import Layout, StepModel


def step_model(config: Config, architecture: Architecture, placement: Placement) -> StepModel:
    """On GPUs of the kind that `cluster.gpu` names."""
    engines, learners = placement.nodes_of("rollout"), placement.nodes_of("learner")
    first = placement.nodes.index(placement.node_of("learner", 0))
    footprint = rollout_footprint(config, architecture, gpu_bytes(config))
    layout = Layout(
        learner_nodes=len(learners),
        engine_nodes_elsewhere=sum(1 for node in engines if node != first),
        cache_bytes=footprint.device["KV cache"] * max(1, config.rollout.gpus_per_worker),
    )
    device = replace(DEVICES[config.cluster.gpu], memory=gpu_bytes(config))
    return StepModel(config, architecture, device, layout)
