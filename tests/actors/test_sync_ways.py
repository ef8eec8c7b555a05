"""Whichever way weights take to an engine, the run is the same."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import ray
from safetensors.torch import load_file
from weight_buckets import all_contents, stored

from mixed_r1_ray.remote import fetch
from mixed_r1_ray.rollout.pool import RolloutPool
from mixed_r1_ray.rollout.worker import RolloutWorker
from mixed_r1_ray.types import WeightUpdate
from mixed_r1_ray.weight_transfer import Broadcasting, Lending, Storing

from .real_parts import save
from .test_awkward_batches import in_turn, prompts_of

pytestmark = pytest.mark.slow
LIMIT, STEPS = 1e-5, 5
SMALL_STEPS = {"learner.learning_rate": 5e-5}
LORA = {"learner.lora_rank": 4, "learner.freeze": "vision+projector", "learner.learning_rate": 1e-3}


@pytest.fixture
def parts(start_parts, family):
    return start_parts(family, SMALL_STEPS)


def through_the_store(parts, tmp_path) -> Callable[[int], None]:
    return Storing(parts.learners, parts.rollout).hand_over


def through_a_file(parts, tmp_path) -> Callable[[int], None]:
    def hand_over(step: int) -> None:
        weights = load_file(save(parts.learners, tmp_path / f"{step}") / "policy" / "model.safetensors")
        parts.rollout.load_weights(WeightUpdate(step, (stored(weights),)))

    return hand_over


def by_broadcast(parts, tmp_path) -> Callable[[int], None]:
    """Between CPUs the group is gloo's; all else is as between GPUs."""
    return Broadcasting(parts.learners, parts.rollout, parts.config).hand_over


def by_lending(parts, tmp_path) -> Callable[[int], None]:
    """On a CPU a handle is the name of a file in shared memory; all else is as on a GPU."""

    def share_by_name(worker) -> None:
        import torch.multiprocessing

        torch.multiprocessing.set_sharing_strategy("file_system")

    workers = (*parts.learners.workers, *parts.rollout.workers)
    ray.get([worker.__ray_call__.remote(share_by_name) for worker in workers])
    return Lending(parts.learners, parts.rollout).hand_over


def loop(parts, way, tmp_path) -> tuple[list[list[int]], dict]:
    """Samples, learns and syncs: every response of every step, and the parameters after the last."""
    parts.begin_anew()
    hand_over = way(parts, tmp_path)
    prompts, said = prompts_of(parts, [[(112, 112)], [], [(60, 100), (112, 40)]]), []
    for step in range(1, STEPS + 1):
        groups = parts.sample(prompts, step=step)
        said += [rollout.token_ids.tolist() for rollout in rollouts(groups)]
        parts.learners.update(parts.batch(groups, in_turn, step))
        hand_over(step)
    return said, {name: tensor.clone() for name, tensor in all_contents(parts.learners.weights(STEPS)).items()}


def rollouts(groups) -> list:
    return [one for group in fetch([g.group for g in groups], what="groups", deadline_s=60.0) for one in group.rollouts]


def check_against_the_store(parts, way, tmp_path) -> None:
    said, parameters = loop(parts, through_the_store, tmp_path)
    said_again, parameters_again = loop(parts, way, tmp_path)
    assert said_again == said
    assert max(float((parameters[name] - parameters_again[name]).abs().max()) for name in parameters) <= LIMIT


@pytest.mark.parametrize("way", [through_a_file, by_broadcast, by_lending])
def test_five_steps_are_the_same_whichever_way_weights_take(parts, way, tmp_path):
    check_against_the_store(parts, way, tmp_path)


@pytest.mark.parametrize("way", [by_broadcast, by_lending])
def test_adapters_take_every_way_merged(start_parts, way, tmp_path):
    """Each update holds the engine's log-probabilities against the learners'."""
    parts = start_parts("internvl", LORA)
    check_against_the_store(parts, way, tmp_path)
    moved = all_contents(parts.learners.weights(STEPS))
    start = load_file(parts.start_folder / "policy" / "model.safetensors")
    assert max(float((moved[name] - start[name]).abs().max()) for name in start) > 1e-3


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
