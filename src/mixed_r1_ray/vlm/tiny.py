"""Tiny vision-language models of both families, made from scratch and saved as ordinary checkpoints.

The classes are the real ones (`InternVLForConditionalGeneration`, `Qwen2_5_VLForConditionalGeneration`), so
whatever loads an 8B model loads these. A picture of 112 x 112 becomes 64 patches, 16 image tokens; Qwen2.5-VL's
tower looks at it in four windows, and as a whole in its last layer. Heads of 32 are the smallest that vLLM's CPU
attention knows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mixed_r1_ray.vlm.tiny_tokenizer import build_tokenizer, chat_template

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

Family = Literal["internvl", "qwen2_5_vl"]
SIDE, PATCH, MERGE, HEAD = 112, 14, 2, 32
WIDTH, VISION_LAYERS, TEXT_LAYERS = 128, 3, 4
MAX_LENGTH = 512
WHITE_IS_ZERO = {"image_mean": [1.0, 1.0, 1.0], "image_std": [0.5, 0.5, 0.5]}  # blank patches are 0

MEDIA_TOKENS: dict[str, dict[str, str]] = {
    "internvl": {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    },
    "qwen2_5_vl": {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_bos_token": "<|vision_start|>",
        "vision_eos_token": "<|vision_end|>",
    },
}


def save_tiny(folder: str | Path, family: Family, texts: Iterable[str], seed: int = 0) -> None:
    """Writes an untrained checkpoint whose vocabulary covers `texts`."""
    processor = build_processor(family, texts)
    build_model(family, processor.tokenizer, seed).save_pretrained(folder)
    processor.save_pretrained(folder)


def build_processor(family: Family, texts: Iterable[str]) -> ProcessorMixin:
    """The family's own processor around a tokenizer that covers `texts`."""
    import transformers

    tokenizer = build_tokenizer(texts, MEDIA_TOKENS[family])
    if family == "internvl":
        size = {"height": SIDE, "width": SIDE}
        return transformers.InternVLProcessor(
            transformers.GotOcr2ImageProcessor(
                size=size, crop_to_patches=False, min_patches=1, max_patches=1, **WHITE_IS_ZERO
            ),
            tokenizer,
            transformers.InternVLVideoProcessor(size=size, **WHITE_IS_ZERO),
            image_seq_length=(SIDE // PATCH // MERGE) ** 2,
            chat_template=chat_template("<IMG_CONTEXT>"),
        )
    size = {"shortest_edge": (PATCH * MERGE) ** 2, "longest_edge": SIDE**2}
    return transformers.Qwen2_5_VLProcessor(
        transformers.Qwen2VLImageProcessor(size=size, patch_size=PATCH, merge_size=MERGE, **WHITE_IS_ZERO),
        tokenizer,
        transformers.Qwen2VLVideoProcessor(size=size, patch_size=PATCH, merge_size=MERGE, **WHITE_IS_ZERO),
        chat_template=chat_template("<|vision_start|><|image_pad|><|vision_end|>"),
    )


def build_model(family: Family, tokenizer: PreTrainedTokenizerFast, seed: int) -> PreTrainedModel:
    """An untrained model of 1.7 M (InternVL) or 2.1 M (Qwen2.5-VL) parameters, float32."""
    import torch
    import transformers

    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 3 * WIDTH,
        "num_hidden_layers": TEXT_LAYERS,
        "num_attention_heads": WIDTH // HEAD,
        "num_key_value_heads": WIDTH // HEAD,
        "max_position_embeddings": MAX_LENGTH,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }
    vision = {"hidden_size": WIDTH, "intermediate_size": 3 * WIDTH, "patch_size": PATCH}
    token_id = tokenizer.convert_tokens_to_ids
    media = {name: token_id(token) for name, token in MEDIA_TOKENS[family].items()}
    if family == "internvl":
        config = transformers.InternVLConfig(
            text_config=text | {"model_type": "qwen2"},
            vision_config=vision
            | {
                "num_hidden_layers": VISION_LAYERS,
                "num_attention_heads": WIDTH // HEAD,
                "image_size": SIDE,
                "layer_scale_init_value": 1.0,
            },
            image_token_id=media["context_image_token"],
            image_seq_length=(SIDE // PATCH // MERGE) ** 2,
            tie_word_embeddings=False,
        )
        model_class = transformers.InternVLForConditionalGeneration
    else:
        text["rope_parameters"] |= {"mrope_section": [HEAD // 2 - 2 * 5, 5, 5]}
        config = transformers.Qwen2_5_VLConfig(
            text_config=text,
            vision_config=vision
            | {
                "depth": VISION_LAYERS,
                "num_heads": WIDTH // HEAD,
                "out_hidden_size": WIDTH,
                "window_size": SIDE // 2,
                "fullatt_block_indexes": [VISION_LAYERS - 1],
            },
            image_token_id=media["image_token"],
            video_token_id=media["video_token"],
            vision_start_token_id=media["vision_bos_token"],
            vision_end_token_id=media["vision_eos_token"],
            tie_word_embeddings=False,
        )
        model_class = transformers.Qwen2_5_VLForConditionalGeneration
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    model = model_class(config).float()
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    _initialise(model, torch.Generator().manual_seed(seed))
    return model


def _initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Matrices at 1/sqrt(fan_in), embeddings likewise, learned patch positions at sines and cosines.

    The classes' own defaults (0.02 everywhere, positions at zero) suit widths of thousands and long training.
    """
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("position_embeddings"):
                parameter[0, 1:] = _sine_cosine_positions(SIDE // PATCH, WIDTH)
            elif parameter.dim() > 1 and not name.endswith("cls_token"):
                fan_in = parameter[0].numel()
                parameter.normal_(std=1 / math.sqrt(fan_in), generator=generator)


def _sine_cosine_positions(side: int, width: int) -> torch.Tensor:
    """(side * side, width): a quarter of the channels each for the sine and cosine of row and column."""
    import torch

    frequencies = 100.0 ** -torch.linspace(0, 1, width // 4)
    angles = torch.arange(side)[:, None] * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, width / 2)
    rows, columns = waves[:, None].expand(side, side, -1), waves[None].expand(side, side, -1)
    return torch.cat([rows, columns], dim=2).reshape(side * side, width)
