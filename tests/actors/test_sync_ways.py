"""Weights reach an engine through the object store or through a checkpoint on disk: the run is the same."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import ray
from safetensors.torch import load_file

from mixed_r1_ray.remote import fetch
from mixed_r1_ray.rollout.pool import RolloutPool
from mixed_r1_ray.rollout.worker import RolloutWorker
from mixed_r1_ray.sync.wire import from_wire, to_wire
from mixed_r1_ray.types import WeightUpdate

from .real_parts import save
from .test_awkward_batches import in_turn, prompts_of

pytestmark = pytest.mark.slow
LIMIT, STEPS = 1e-5, 5
SMALL_STEPS = {"learner.learning_rate": 5e-5}


@pytest.fixture
def parts(start_parts, family):
    return start_parts(family, SMALL_STEPS)


def through_the_store(parts, step, tmp_path) -> WeightUpdate:
    return parts.learners.weights(step)


def through_a_file(parts, step, tmp_path) -> WeightUpdate:
    weights = load_file(save(parts.learners, tmp_path / f"{step}") / "policy" / "model.safetensors")
    bucket = ray.put({name: to_wire(tensor) for name, tensor in weights.items()})
    return WeightUpdate(step, tuple(weights), (bucket,))


def loop(parts, way, tmp_path) -> tuple[list[list[int]], dict]:
    """Samples, learns and syncs: every response of every step, and the parameters after the last."""
    parts.begin_anew()
    prompts, said = prompts_of(parts, [[(112, 112)], [], [(60, 100), (112, 40)]]), []
    for step in range(1, STEPS + 1):
        groups = parts.sample(prompts, step=step)
        said += [rollout.token_ids.tolist() for rollout in rollouts(groups)]
        parts.learners.update(parts.batch(groups, in_turn, step))
        parts.rollout.load_weights(way(parts, step, tmp_path))
    buckets = ray.get(list(parts.learners.weights(STEPS).buckets))
    return said, {name: from_wire(tensor).clone() for bucket in buckets for name, tensor in bucket.items()}


def rollouts(groups) -> list:
    return [one for group in fetch([g.group for g in groups], what="groups", deadline_s=60.0) for one in group.rollouts]


def test_five_steps_are_the_same_whichever_way_weights_take(parts, tmp_path):
    said, parameters = loop(parts, through_the_store, tmp_path)
    said_again, parameters_again = loop(parts, through_a_file, tmp_path)
    assert said_again == said
    assert max(float((parameters[name] - parameters_again[name]).abs().max()) for name in parameters) <= LIMIT


def test_a_new_engine_started_from_the_written_policy_says_the_same(parts, tmp_path):
    loop(parts, through_the_store, tmp_path)
    config = deepcopy(parts.config)
    config.model.path = str(save(parts.learners, tmp_path) / "policy")
    engine = RolloutWorker.options(num_cpus=0).remote(config)
    prompts = prompts_of(parts, [[(112, 112)], [], [(60, 100), (112, 40)]])
    old, pool = parts.rollout, RolloutPool([engine], 300.0)
    live = rollouts(parts.sample(prompts, step=9))
    parts.rollout = pool
    fresh = rollouts(parts.sample(prompts, step=9))
    parts.rollout = old
    ray.kill(engine)
    assert [one.token_ids.tolist() for one in fresh] == [one.token_ids.tolist() for one in live]
    for one, two in zip(live, fresh, strict=True):
        assert np.abs(one.logprobs - two.logprobs).max() <= LIMIT
