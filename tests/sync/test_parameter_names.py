"""Names under which weights reach the engine, for models of the published shapes, built on torch's meta device.

An engine loads a published checkpoint's names when it starts and the trainer's when weights are synchronised; both must
end in the same parameters of vLLM's classes. That these fill all of an engine is counted at every load
(tests/rollout/test_engine.py), for tiny models; what the published ones have beyond them is named here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

from mixed_r1_ray.policy.lora import add_lora, merged_parameters
from mixed_r1_ray.scale.published import PUBLISHED

INTERNVL, QWEN, QWEN_7B = "OpenGVLab/InternVL3-2B-hf", "Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct"
CONFIGS = {"internvl": transformers.InternVLConfig, "qwen2_5_vl": transformers.Qwen2_5_VLConfig}
TOWER_BIASES = {f"model.vision_tower.encoder.layer.N.attention.{part}_proj.bias" for part in "qkv"}
ENGINE_SESSION = Path(__file__).parents[1] / "rollout" / "engine_session.py"


def built(name: str):
    config = PUBLISHED[name]
    with torch.device("meta"):
        return transformers.AutoModelForImageTextToText.from_config(CONFIGS[config["model_type"]].from_dict(config))


def sent(model) -> list[str]:
    """What a learner sends."""
    return [parameter.name for parameter in merged_parameters(model)]


def published(model) -> list[str]:
    """The names in a checkpoint's files, by the renaming that transformers undoes when it writes one."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import revert_weight_conversion

    assert get_model_conversion_mapping(model)
    kept = {id(parameter) for parameter in model.parameters()}
    state = {name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in kept}
    if model.config.tie_word_embeddings:
        del state["lm_head.weight"]  # files hold a shared matrix once
    return list(revert_weight_conversion(model, state))


@pytest.mark.parametrize("name", [INTERNVL, QWEN, QWEN_7B])
def test_every_parameter_is_sent_once_and_a_shared_head_with_the_embeddings(name):
    model = built(name)
    names, state = sent(model), set(model.state_dict())
    assert len(names) == len(set(names))
    assert state - set(names) == ({"lm_head.weight"} if name == QWEN else set())


def test_adapters_change_no_name():
    model = built(INTERNVL)
    before = sent(model)
    with torch.device("meta"):
        add_lora(model, rank=4, alpha=8.0, seed=0)
    assert sent(model) == before


@pytest.mark.parametrize(
    ("name", "beyond", "missing"),
    [(INTERNVL, TOWER_BIASES, set()), (QWEN, set(), {"lm_head.weight"}), (QWEN_7B, set(), set())],
)
def test_tiny_models_have_the_published_ones_names_but_for_these(tiny_checkpoints, name, beyond, missing):
    def kinds(model) -> set[str]:
        return {re.sub(r"\d+", "N", each) for each in sent(model)}

    real, family = kinds(built(name)), PUBLISHED[name]["model_type"]
    tiny = kinds(transformers.AutoModelForImageTextToText.from_pretrained(tiny_checkpoints[family]))
    assert real - tiny == beyond and tiny - real == missing


@pytest.mark.slow
@pytest.mark.parametrize("name", [INTERNVL, QWEN, QWEN_7B])
def test_a_sync_fills_the_parameters_that_the_published_checkpoint_filled(name):
    from vllm.model_executor.models.registry import ModelRegistry

    model = built(name)
    engine = ModelRegistry.models[type(model).__name__].load_model_cls()
    files, trainer = published(model), sent(model)
    assert not set(files) & set(trainer) - {"lm_head.weight"}  # two layouts, or this compares a thing with itself
    renamed = [engine.hf_to_vllm_mapper.apply_list(names) for names in (files, trainer)]
    assert set(renamed[0]) == set(renamed[1]) and len(renamed[1]) == len(set(renamed[1])) == len(files)


@pytest.mark.slow
def test_an_engine_takes_over_a_tower_with_biases(tiny_checkpoints, tmp_path):
    """As InternVL3's has them, and the tiny one not: loaded at the start and by a sync, and felt."""
    path, folder = tiny_checkpoints["internvl"], tmp_path / "internvl"
    config = transformers.AutoConfig.from_pretrained(path)
    config.vision_config.attention_bias = True
    plain = transformers.AutoModelForImageTextToText.from_pretrained(path)
    model = transformers.AutoModelForImageTextToText.from_config(config)
    lacking, unexpected = model.load_state_dict(plain.state_dict(), strict=False)
    assert {re.sub(r"\d+", "N", each) for each in lacking} == TOWER_BIASES and not unexpected
    for each in lacking:
        torch.nn.init.normal_(model.get_parameter(each), generator=torch.Generator().manual_seed(len(each)))
    model.generation_config = plain.generation_config
    model.save_pretrained(folder)
    transformers.AutoProcessor.from_pretrained(path).save_pretrained(folder)
    result = tmp_path / "result.json"
    command = [sys.executable, str(ENGINE_SESSION), str(folder), str(result)]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.run(command, capture_output=True, text=True, timeout=500, env=one_thread)
    assert process.returncode == 0, process.stderr[-1500:]
    measured = json.loads(result.read_text())
    assert measured["mismatch_initial"] <= 1e-4 and measured["mismatch_loaded"] <= 1e-4 < measured["mismatch_stale"]
