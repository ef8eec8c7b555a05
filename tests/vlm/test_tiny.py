from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from mixed_r1_ray.config import ModelConfig
from mixed_r1_ray.vlm.families import load_adapter
from mixed_r1_ray.vlm.tiny import save_tiny

TEXTS = ["Where is the red circle? Answer with its box.", "[7, 14, 112, 1000]", "An orange square."]
FAMILIES = ("internvl", "qwen2_5_vl")


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    save_tiny(folder, request.param, TEXTS, seed=0)
    return folder


@pytest.fixture(scope="module")
def adapter(checkpoint):
    return load_adapter(ModelConfig(path=str(checkpoint)))


def picture(shade=255):
    image = np.full((112, 112, 3), 255, np.uint8)
    image[20:60, 30:80] = shade
    return image


def test_ordinary_loaders_open_the_checkpoint(checkpoint):
    model = AutoModelForImageTextToText.from_pretrained(checkpoint)
    processor = AutoProcessor.from_pretrained(checkpoint)
    assert model.dtype == torch.float32
    assert 1e6 < sum(parameter.numel() for parameter in model.parameters()) < 2.5e6
    assert model.config.text_config.vocab_size == len(processor.tokenizer)
    assert model.generation_config.eos_token_id == processor.tokenizer.eos_token_id


@pytest.mark.parametrize(
    "text",
    [
        "<think>red circle</think> <answer>[7, 14, 112, 1000]</answer>",
        "An orange square. Where?\n  box",
    ],
)
def test_tokenizer_is_lossless(adapter, text):
    tokenizer = adapter.tokenizer
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == tokenizer.decode(ids, skip_special_tokens=True) == text


def test_tags_and_numbers_are_one_token_each(adapter):
    assert adapter.tokenizer.tokenize("<answer>[112, 1000]</answer>") == [
        "<answer>", "[", "112", ",", " 1000", "]", "</answer>",
    ]  # fmt: skip


def test_an_unknown_word_becomes_the_unknown_token(adapter):
    assert adapter.tokenizer(" zebra")["input_ids"] == [adapter.tokenizer.unk_token_id]


def test_prompt_holds_one_placeholder_a_picture_until_it_is_encoded(adapter):
    text = adapter.prompt_text("Where is the red circle?", num_images=2)
    placeholder = adapter.tokenizer.convert_ids_to_tokens(adapter.image_token_id)
    assert text.count(placeholder) == 2
    inputs = adapter.encode(text, [picture(), picture(0)])
    assert adapter.num_image_tokens(inputs) == 2 * 16
    assert adapter.tokenizer.unk_token_id not in inputs.input_ids


def test_chat_template_renders_whole_conversations(adapter):
    messages = [
        {"role": "system", "content": "red"},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Where?"}]},
        {"role": "assistant", "content": "box"},
    ]
    text = adapter.processor.apply_chat_template(messages, tokenize=False)
    assert text.startswith("red<|user|>")
    assert text.endswith("Where?<|assistant|>box<|end|>")


def test_white_is_zero(adapter):
    inputs = adapter.encode(adapter.prompt_text("red", 1), [picture()])
    assert np.abs(inputs.pixels["pixel_values"]).max() < 1e-6


def test_media_tokens_are_all_banned(adapter):
    known = set(adapter.tokenizer.all_special_tokens)
    chat = {"<|pad|>", "<|unknown|>", "<|user|>", "<|assistant|>", "<|end|>"}
    assert set(adapter.tokenizer.convert_ids_to_tokens(adapter.banned_token_ids)) == known - chat


def test_the_picture_reaches_the_logits(checkpoint, adapter):
    model = AutoModelForImageTextToText.from_pretrained(checkpoint)
    logits = []
    for shade in (255, 0):
        inputs = adapter.encode(adapter.prompt_text("red", 1), [picture(shade)])
        batch = {name: torch.from_numpy(values) for name, values in inputs.pixels.items()}
        ids = torch.from_numpy(inputs.input_ids)[None]
        if adapter.model_type == "qwen2_5_vl":
            batch["mm_token_type_ids"] = (ids == adapter.image_token_id).int()
        with torch.no_grad():
            logits.append(model(input_ids=ids, **batch).logits[0, -1])
    assert (logits[0] - logits[1]).abs().max() > 1e-2


def test_the_seed_decides_the_weights(tmp_path):
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        save_tiny(tmp_path / name, "internvl", TEXTS, seed)
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_heads_are_of_a_size_that_vllm_knows_on_a_cpu(checkpoint):
    text = json.loads((checkpoint / "config.json").read_text())["text_config"]
    assert text["hidden_size"] // text["num_attention_heads"] in (32, 64, 80, 96, 112, 128)
