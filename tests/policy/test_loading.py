"""Loading checkpoints as policies, and freezing their parts."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from mixed_r1_ray.config import ModelConfig
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.policy.loading import freeze_parts, load_policy


def test_loads_the_saved_weights_of_both_families(checkpoint):
    policy = load_policy(ModelConfig(path=checkpoint), temperature=0.7)
    saved = load_file(f"{checkpoint}/model.safetensors")  # its names are the hub's, not the class's
    loaded = dict(policy.model.named_parameters())
    assert len(loaded) == len(saved)
    assert {value.sum().item() for value in loaded.values()} == {
        value.sum().item() for value in saved.values()
    }
    assert policy.temperature == 0.7 and policy.train_vision


def test_dtype_is_the_configured_one(checkpoint):
    policy = load_policy(ModelConfig(path=checkpoint, dtype="bfloat16"), temperature=1.0)
    assert {parameter.dtype for parameter in policy.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("freeze", "trained", "vision_needs_gradient"),
    [
        ("none", {"vision", "projector", "language"}, True),
        ("vision", {"projector", "language"}, True),
        ("vision+projector", {"language"}, False),
    ],
)
def test_freezing_takes_exactly_the_named_parts(checkpoint, freeze, trained, vision_needs_gradient):
    policy = load_policy(ModelConfig(path=checkpoint), temperature=1.0)
    assert freeze_parts(policy.model, policy.adapter, freeze) is vision_needs_gradient
    parts = {True: set(), False: set()}
    for name, parameter in policy.model.named_parameters():
        parts[parameter.requires_grad].add(policy.adapter.part_of(name))
    assert parts == {True: trained, False: {"vision", "projector", "language"} - trained}


def test_parts_are_where_the_model_keeps_them(checkpoint):
    policy = load_policy(ModelConfig(path=checkpoint), temperature=1.0)
    tower = (
        policy.model.model.vision_tower
        if policy.adapter.model_type == "internvl"
        else policy.model.model.visual
    )
    inside = {id(parameter) for parameter in tower.parameters()}
    language = {id(parameter) for parameter in policy.model.model.language_model.parameters()}
    language |= {id(parameter) for parameter in policy.model.lm_head.parameters()}
    for name, parameter in policy.model.named_parameters():
        part = policy.adapter.part_of(name)
        assert (part == "language") == (id(parameter) in language), name
        assert part == "projector" or (part == "vision") == (id(parameter) in inside), name


def test_parts_go_by_the_names_that_the_family_gives_its_parameters(family, checkpoint):
    policy = load_policy(ModelConfig(path=checkpoint), temperature=1.0)
    names = {
        "internvl": {
            "model.vision_tower.embeddings.cls_token": "vision",
            "model.vision_tower.encoder.layer.0.attention.q_proj.weight": "vision",
            "model.multi_modal_projector.linear_1.weight": "projector",
            "model.language_model.layers.0.mlp.up_proj.weight": "language",
            "lm_head.weight": "language",
        },
        "qwen2_5_vl": {
            "model.visual.patch_embed.proj.weight": "vision",
            "model.visual.blocks.0.attn.qkv.weight": "vision",
            "model.visual.merger.mlp.0.weight": "projector",
            "model.language_model.embed_tokens.weight": "language",
            "lm_head.weight": "language",
        },
    }[family]
    assert names.keys() <= dict(policy.model.named_parameters()).keys()
    assert {name: policy.adapter.part_of(name) for name in names} == names


def test_a_path_that_holds_nothing_is_a_user_error_that_names_it(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match=str(path)):
            load_policy(ModelConfig(path=str(path)), temperature=1.0)


def test_missing_or_cut_weights_are_a_user_error_that_names_the_path(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=str(tmp_path)):
        load_policy(ModelConfig(path=str(tmp_path)), temperature=1.0)
    weights.unlink()
    with pytest.raises(UserError, match=str(tmp_path)):
        load_policy(ModelConfig(path=str(tmp_path)), temperature=1.0)


def test_a_checkpoint_that_lacks_a_parameter_is_refused_not_filled_with_noise(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    del weights[next(name for name in weights if name.endswith("lm_head.weight"))]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="lm_head.weight"):
        load_policy(ModelConfig(path=str(tmp_path)), temperature=1.0)


def test_another_family_is_refused_with_the_known_ones(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "llava"}))
    with pytest.raises(UserError, match="'llava'.*internvl, qwen2_5_vl"):
        load_policy(ModelConfig(path=str(tmp_path)), temperature=1.0)


def test_the_remote_code_internvl_is_refused_with_a_hint_at_the_native_one(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "internvl_chat"}))
    with pytest.raises(UserError, match="-hf"):
        load_policy(ModelConfig(path=str(tmp_path)), temperature=1.0)
