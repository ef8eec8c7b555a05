"""Engine, learners and reference agree on tokens at positions beyond 4,096."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import ray

from mixed_r1_ray.policy.reference import ReferenceWorker
from mixed_r1_ray.remote import fetch

from .real_parts import RealParts

LIMIT = 1e-4  # nats, float32
WORDS, POSITIONS = 4200, 5120


@pytest.fixture(params=["internvl", "qwen2_5_vl"])
def parts(request, tiny_checkpoints, start_learners, tmp_path):
    """Started for prompts of this length; two learner ranks, so weights are gathered while they compute."""
    folder = tmp_path / request.param
    shutil.copytree(tiny_checkpoints[request.param], folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = POSITIONS
    (folder / "config.json").write_text(json.dumps(config))
    settings = {"model.max_length": POSITIONS, "learner.gradient_checkpointing": True}
    started = RealParts.start(str(folder), settings, start_learners, tmp_path / "start")
    yield started
    started.end()


@pytest.mark.slow
def test_all_three_say_the_same_of_tokens_far_from_the_start(parts):
    prompts = [parts.prompt(f"p{number}", [(112, 112)] * number, "red " * WORDS + "?") for number in (0, 1)]
    groups = parts.sample(prompts)
    assert min(group.info.prompt_tokens for group in groups) > 4096
    contents = fetch([group.group for group in groups], what="groups", deadline_s=60.0)
    engine = np.concatenate([rollout.logprobs for content in contents for rollout in content.rollouts])
    learners = np.concatenate(parts.learners.logprobs(groups))
    reference = ReferenceWorker.options(num_cpus=0).remote(parts.config)
    answers = [reference.logprobs.remote(group.prompt.inputs, group.group)[1] for group in groups]
    theirs = np.concatenate([part for answer in ray.get(answers) for part in answer])
    ray.kill(reference)
    assert np.abs(engine - learners).max() <= LIMIT
    assert np.abs(engine - theirs).max() <= LIMIT
