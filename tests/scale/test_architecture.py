"""Counts of parameters against models built on torch's meta device, and against totals kept here."""

from __future__ import annotations

import json

import pytest
import torch
import transformers

from mixed_r1_ray.scale.architecture import UnknownShape, parse_architecture, read_architecture
from mixed_r1_ray.scale.published import PUBLISHED
from mixed_r1_ray.vlm.families import FAMILIES
from mixed_r1_ray.vlm.tiny import save_tiny

TOTALS = {  # as remembered of the published checkpoints; not read from their repositories
    "OpenGVLab/InternVL3-2B-hf": 2_088_957_440,
    "OpenGVLab/InternVL3-8B-hf": 7_944_373_760,
    "Qwen/Qwen2.5-VL-3B-Instruct": 3_754_622_976,
    "Qwen/Qwen2.5-VL-7B-Instruct": 8_292_166_656,
}


def changed(key: str, value: object) -> dict:
    """An InternVL's config.json with another number in its language model."""
    published = PUBLISHED["OpenGVLab/InternVL3-8B-hf"]
    return published | {"text_config": published["text_config"] | {key: value}}


def parts_of(model: torch.nn.Module, family: str) -> dict[str, int]:
    counts = {"vision": 0, "projector": 0, "language": 0}
    for name, parameter in model.named_parameters():
        counts[FAMILIES[family].part_of(FAMILIES[family], name)] += parameter.numel()
    return counts


def built(config: dict) -> torch.nn.Module:
    known = {"internvl": transformers.InternVLConfig, "qwen2_5_vl": transformers.Qwen2_5_VLConfig}
    with torch.device("meta"):
        return transformers.AutoModelForImageTextToText.from_config(known[config["model_type"]].from_dict(config))


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_those_of_the_built_model_part_by_part(name):
    architecture, model = read_architecture(name), built(PUBLISHED[name])
    vision = architecture.vision
    counted = {"vision": vision.parameters, "projector": vision.projector_parameters}
    assert counted | {"language": architecture.language.parameters} == parts_of(model, architecture.family)
    assert architecture.parameters == TOTALS[name]
    assert architecture.largest_parameter == max(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("family", ["internvl", "qwen2_5_vl"])
def test_a_folder_is_read_from_its_config(tmp_path, family):
    save_tiny(tmp_path, family, ["what is it?"])
    model = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path)
    architecture = read_architecture(str(tmp_path))
    assert architecture.parameters == sum(parameter.numel() for parameter in model.parameters())
    for freeze in ("none", "vision", "vision+projector"):
        parts = parts_of(model, family)
        frozen = sum(parts[part] for part in freeze.split("+") if part != "none")
        assert architecture.trained(freeze) == architecture.parameters - frozen


def test_picture_tokens_are_counted_from_the_caps():
    internvl, qwen = (read_architecture(name) for name in ("OpenGVLab/InternVL3-8B-hf", "Qwen/Qwen2.5-VL-7B-Instruct"))
    assert internvl.picture_tokens(max_tiles=12, max_pixels=None) == 13 * 256
    assert internvl.picture_tokens(max_tiles=1, max_pixels=None) == 256
    assert qwen.picture_tokens(max_tiles=None, max_pixels=1280 * 28 * 28) == 1280
    assert qwen.picture_tokens(max_tiles=None, max_pixels=None) is None


def test_what_a_config_leaves_out_is_the_class_default():
    published = PUBLISHED["Qwen/Qwen2.5-VL-3B-Instruct"]
    sparse = published | {"vision_config": {"hidden_size": 1280, "out_hidden_size": 2048}}
    assert parse_architecture(sparse) == parse_architecture(published)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "llava"}, "names the model type 'llava'; shapes are known of internvl, qwen2_5_vl"),
        ({"model_type": "internvl"}, "has no vision_config"),
        (PUBLISHED["OpenGVLab/InternVL3-8B-hf"] | {"vision_config": None}, "something else where a number"),
        ([], "something else where a number"),
        ({}, "has no model_type"),
        (PUBLISHED["OpenGVLab/InternVL3-8B-hf"] | {"text_config": {"model_type": "qwen3_moe"}}, "language model 'qwen3_moe'"),
        (changed("num_attention_heads", 0), "something else where a number"),
        (changed("hidden_size", "wide"), "something else where a number"),
        (changed("intermediate_size", -10**9), "something else where a number"),
    ],
)
def test_what_is_no_known_shape_is_told_in_words(tmp_path, config, said):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnknownShape) as caught:
        read_architecture(str(tmp_path))
    assert str(tmp_path) in str(caught.value) and said in str(caught.value)
    assert not any(sign in str(caught.value) for sign in ("Error(", "{", "('"))


def test_names_that_are_nothing_here_and_files_that_are_no_json_are_told_likewise(tmp_path):
    (tmp_path / "config.json").write_text("{")
    for path in (str(tmp_path), "someone/something", "tiny:internvl"):
        with pytest.raises(UnknownShape, match=path):
            read_architecture(path)
