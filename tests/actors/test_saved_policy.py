"""What learners hand to engines, write for others to load, and keep to go on from is one model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mixed_r1_ray.config import ModelConfig
from mixed_r1_ray.policy.loading import load_policy
from mixed_r1_ray.policy.packing import pack
from mixed_r1_ray.remote import fetch
from mixed_r1_ray.types import Reading

from .real_parts import save
from .test_awkward_batches import LIMIT, in_turn, prompts_of

LORA = {"learner.lora_rank": 4, "learner.freeze": "vision+projector", "algo.beta": 0.04}


@pytest.fixture(
    params=["qwen2_5_vl", pytest.param("internvl", marks=pytest.mark.slow), pytest.param("lora", marks=pytest.mark.slow)]
)
def trained(request, start_parts, tmp_path):
    """Parts after an update, their prompts, and the checkpoint that they wrote."""
    parts = start_parts("internvl", LORA) if request.param == "lora" else start_parts(request.param)
    prompts = prompts_of(parts, [[(112, 112)], [], [(60, 100), (112, 40)]])
    parts.learners.update(parts.batch(parts.sample(prompts), in_turn))
    folder = save(parts.learners, tmp_path)
    parts.sync(version=1)
    return parts, prompts, folder


def scored_by_saved(parts, folder, groups) -> np.ndarray:
    """Log-probabilities under the written policy, as anybody would load it."""
    path = str(folder / "policy")
    policy = load_policy(ModelConfig(path=path, max_tiles=parts.config.model.max_tiles), 0.8).eval()
    inputs = fetch([one.prompt.inputs for one in groups], what="inputs", deadline_s=60.0)
    contents = fetch([one.group for one in groups], what="groups", deadline_s=60.0)
    responses = [[rollout.token_ids for rollout in group.rollouts] for group in contents]
    with torch.no_grad():
        return policy(pack(inputs, responses, policy.adapter, policy.model))[0].numpy()


def test_engine_learners_and_the_written_policy_agree(trained):
    parts, prompts, folder = trained
    groups = parts.sample(prompts, step=2)
    engine = np.concatenate(
        [r.logprobs for one in groups for r in fetch(one.group, what="group", deadline_s=60.0).rollouts]
    )
    learners = np.concatenate(parts.learners.logprobs(groups))
    assert np.abs(engine - learners).max() <= LIMIT
    assert np.abs(engine - scored_by_saved(parts, folder, groups)).max() <= LIMIT


def test_loading_what_was_saved_goes_on_as_if_nothing_had_happened(trained):
    """Another update in between is forgotten, moments and counters included."""
    parts, prompts, folder = trained
    batch = parts.batch(parts.sample(prompts, step=2), in_turn, step=2)
    once = parts.learners.update(batch)
    parts.learners.load(folder)
    again = parts.learners.update(batch)
    for name, value in once.items():
        assert again[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name


def test_tied_embeddings_are_one_parameter_in_every_form(start_parts, tmp_path):
    parts = start_parts("qwen2_5_vl")
    assert "lm_head.weight" not in parts.learners.weights(version=1).names
    folder = save(parts.learners, tmp_path)
    state = {name for shard in folder.glob("optimizer-*") for name in load_file(shard)}
    assert "exp_avg/model.language_model.embed_tokens.weight" in state
    assert not any("lm_head" in name for name in state)
    model = load_policy(ModelConfig(path=str(folder / "policy")), 1.0).model
    assert model.lm_head.weight is model.get_input_embeddings().weight


@pytest.fixture
def adapted(start_parts):
    return start_parts("internvl", LORA)


@pytest.mark.slow
def test_under_lora_only_adapters_are_trained_kept_and_merged(adapted, tmp_path):
    prompts = prompts_of(adapted, [[(112, 112)], [(57, 90)]])
    assert adapted.prove(prompts, step=0) <= LIMIT  # the policy is its reference, too
    adapted.learners.update(adapted.batch(adapted.sample(prompts), in_turn))
    folder = save(adapted.learners, tmp_path)
    state = {name for shard in folder.glob("optimizer-*") for name in load_file(shard)} - {"optimizer_steps"}
    assert len(state) == 3 * 2 * 28 and all(".lora_" in name for name in state)
    start, now = (load_file(one / "policy" / "model.safetensors") for one in (adapted.start_folder, folder))
    moved = {name for name in start if not torch.equal(start[name], now[name])}
    assert len(moved) == 28 and all("language_model" in name and name.endswith("proj.weight") for name in moved)


@pytest.mark.slow
def test_under_lora_the_reference_is_the_policy_without_adapters(adapted):
    prompts = prompts_of(adapted, [[(112, 112)], [], [(57, 90)]])
    groups = adapted.sample(prompts)
    first = adapted.learners.update(adapted.batch(groups, in_turn))
    assert first["kl/reference"] == 0.0
    adapted.sync(version=1)
    groups = adapted.sample(prompts, step=2)
    away = [
        without - with_
        for without, with_ in zip(
            adapted.learners.logprobs(groups, Reading(adapters=False)), adapted.learners.logprobs(groups), strict=True
        )
    ]
    second = adapted.learners.update(adapted.batch(groups, in_turn, step=2))
    expected = np.concatenate([np.expm1(part) - part for part in away]).mean()
    assert second["kl/reference"] == pytest.approx(float(expected), rel=1e-3)
    assert expected > 1e-6
