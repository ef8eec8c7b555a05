"""Checkpoints of published shapes with random weights and the quickstart's tokenizer, made without a network.

What they say is nonsense. What they cost is what the published ones cost: same layers, same vocabulary, same pictures.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mixed_r1_ray.scale.published import PUBLISHED
from mixed_r1_ray.vlm.tiny import MEDIA_TOKENS, build_processor

if TYPE_CHECKING:
    import torch

TILE = 448  # pixels
TILE_TOKENS = 256
_INTERNVL_2B = PUBLISHED["OpenGVLab/InternVL3-2B-hf"]
_SMALL = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
SHAPES: dict[str, dict] = {
    "qwen2_5_vl_3b": PUBLISHED["Qwen/Qwen2.5-VL-3B-Instruct"],
    "internvl_2b": _INTERNVL_2B,
    "tiny": _INTERNVL_2B  # for a CPU
    | {
        "text_config": _INTERNVL_2B["text_config"] | _SMALL | {"num_key_value_heads": 2, "vocab_size": 1000},
        "vision_config": _INTERNVL_2B["vision_config"] | _SMALL,
    },
}


def save_random(folder: Path, shape: str, texts: Iterable[str], device: torch.device) -> None:
    """Writes a bfloat16 checkpoint of one of SHAPES, made on `device`. texts: what the tokenizer should know."""
    import torch

    torch.manual_seed(0)
    model, processor = build_random(shape, texts, device)
    model.to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)


def build_random(shape: str, texts: Iterable[str], device: torch.device):
    """The model, by its class's own initialisation, and its processor."""
    import torch
    import transformers

    published = SHAPES[shape]
    internvl = published["model_type"] == "internvl"
    processor = build_processor(published["model_type"], texts)
    tokenizer = processor.tokenizer
    token_id = tokenizer.convert_tokens_to_ids
    media = {name: token_id(token) for name, token in MEDIA_TOKENS[published["model_type"]].items()}
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    text = published["text_config"] | ends
    if internvl:
        processor.image_processor.size = {"height": TILE, "width": TILE}
        processor.video_processor.size = {"height": TILE, "width": TILE}
        processor.image_seq_length = TILE_TOKENS
        ids = {"image_token_id": media["context_image_token"], "image_seq_length": TILE_TOKENS}
        config = transformers.InternVLConfig.from_dict(published | {"text_config": text} | ids)
        model_class = transformers.InternVLForConditionalGeneration
    else:
        head = text["hidden_size"] // text["num_attention_heads"] // 2
        sections = [head - 2 * (head * 3 // 8), head * 3 // 8, head * 3 // 8]  # 16, 24, 24 of a head of 128
        text |= {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections}}
        ids = {
            "image_token_id": media["image_token"],
            "video_token_id": media["video_token"],
            "vision_start_token_id": media["vision_bos_token"],
            "vision_end_token_id": media["vision_eos_token"],
        }
        config = transformers.Qwen2_5_VLConfig.from_dict(published | {"text_config": text} | ids)
        model_class = transformers.Qwen2_5_VLForConditionalGeneration
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    with device:
        model = model_class(config)
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model, processor
