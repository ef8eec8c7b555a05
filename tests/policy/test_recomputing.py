"""Gradient checkpointing in real learners: what it keeps for the backward pass, and that it changes nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from real_learners import found_in_learners, packed_group

from mixed_r1_ray.config import Config, LearnerConfig, ModelConfig
from mixed_r1_ray.policy.loading import load_policy

RESPONSES, LENGTH = 4, 200
DROPOUT = {
    "internvl": {
        "text_config": {"attention_dropout": 0.5},
        "vision_config": {"attention_dropout": 0.5, "projection_dropout": 0.5, "hidden_dropout_prob": 0.5},
    },
    "qwen2_5_vl": {"text_config": {"attention_dropout": 0.5}},
}
CASES = {  # learner.freeze, learner.gradient_checkpointing, dropout in the checkpoint's config, learner.lora_rank
    "off": ("none", False, False, 0),
    "on": ("none", True, True, 0),
    "frozen tower": ("vision", True, True, 0),
    "adapters off": ("vision+projector", False, False, 4),
    "adapters on": ("vision+projector", True, True, 4),
}


def kept_and_gradients(learner) -> dict:
    """Bytes that a forward keeps, parameters left out; parts with layers that are differentiated; gradients."""
    from deepspeed.utils import safe_get_full_grad
    from transformers.modeling_layers import GradientCheckpointingLayer

    packed = packed_group(learner.policy, RESPONSES, LENGTH)
    own = {p.ds_tensor.untyped_storage().data_ptr() for p in learner.policy.parameters()}
    kept, tensors = {}, []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        tensors.append(tensor)  # or its address would be used again
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    outputs = []
    for name, module in learner.policy.model.named_modules():
        if isinstance(module, GradientCheckpointingLayer):
            part = learner.adapter.part_of(name)
            module.register_forward_hook(lambda _, __, out, part=part: outputs.append((part, out.requires_grad)))
    with torch.no_grad():  # as `logprobs` and the old policy's: a pass between may change nothing
        learner.engine(packed)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logprobs, _ = learner.engine(packed)
    learner.engine.set_gradient_accumulation_boundary(True)
    learner.engine.backward(logprobs.mean())
    parameters = [(name, p) for name, p in learner.policy.model.named_parameters() if p.requires_grad]
    gradients = {name: safe_get_full_grad(parameter).numpy() for name, parameter in parameters}
    return {
        "kept": sum(kept.values()),
        "differentiated": {part for part, requires_grad in outputs if requires_grad},
        "logprobs": logprobs.detach().numpy(),
        "gradients": gradients,
    }


def with_dropout(checkpoint: str, family: str, folder: Path) -> str:
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    for part, probabilities in DROPOUT[family].items():
        config[part] |= probabilities
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.fixture(scope="module")
def found(family, checkpoint, tmp_path_factory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("learners")
    paths = {False: checkpoint, True: with_dropout(checkpoint, family, folder / "dropout")}
    configs = {
        name: Config(
            model=ModelConfig(path=paths[dropout]),
            learner=LearnerConfig(freeze=freeze, gradient_checkpointing=on, lora_rank=lora),
        )
        for name, (freeze, on, dropout, lora) in CASES.items()
    }
    return found_in_learners(configs, kept_and_gradients, folder)


@pytest.mark.parametrize("trained", ["", "adapters "])
def test_a_learner_that_recomputes_keeps_a_small_part(found, trained):
    """Four layers' inputs and what the output head reads, instead of all that happens within the layers."""
    off, on = (found[trained + how]["kept"] for how in ("off", "on"))
    assert 0 < on <= 0.15 * off


def test_a_frozen_tower_is_not_differentiated_for_the_projector_behind_it(found):
    assert found["on"]["differentiated"] == {"vision", "language"}
    assert found["frozen tower"]["differentiated"] == {"language"}
    assert any("projector" in name or "merger" in name for name in found["frozen tower"]["gradients"])


@pytest.mark.parametrize("case", ["off", "on", "frozen tower"])
def test_gradients_are_those_of_a_plain_forward_without_dropout(found, checkpoint, case):
    policy = load_policy(ModelConfig(path=checkpoint), 1.0).eval()
    logprobs, _ = policy(packed_group(policy, RESPONSES, LENGTH))
    logprobs.mean().backward()
    torch.testing.assert_close(torch.from_numpy(found[case]["logprobs"]), logprobs.detach(), atol=1e-5, rtol=0)
    plain = {name: parameter.grad for name, parameter in policy.model.named_parameters()}
    assert len(found[case]["gradients"]) == len(plain) or case == "frozen tower"
    for name, gradient in found[case]["gradients"].items():
        scale = float(plain[name].abs().max()) + 1e-8
        torch.testing.assert_close(torch.from_numpy(gradient) / scale, plain[name] / scale, atol=1e-4, rtol=0)


def test_adapters_get_the_same_gradients_either_way(found):
    off, on = (found[f"adapters {how}"]["gradients"] for how in ("off", "on"))
    assert off.keys() == on.keys() and any(gradient.any() for gradient in off.values())
    for name, gradient in off.items():
        assert abs(on[name] - gradient).max() <= 1e-5 * (abs(gradient).max() + 1e-8), name
