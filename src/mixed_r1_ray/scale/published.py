"""The architecture numbers of the supported checkpoints, in the form of their config.json: for planning without a network.

Not every number could be read from the repositories when this was written; a local folder's config.json is always the
better source. tests/scale/test_architecture.py builds each on torch's meta device and compares the counts of parameters.
"""

from __future__ import annotations

_INTERNVIT_300M = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": [448, 448],
    "patch_size": [14, 14],
    "attention_bias": True,
}
QWEN2_5_VIT = {  # also the defaults of its configuration class: re-saved checkpoints leave them out
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "depth": 32,
    "num_heads": 16,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
}
_QWEN2_5_1_5B = {
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
}
_QWEN2_5_3B = {
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
}
_QWEN2_5_7B = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
}


def _internvl3(text: dict) -> dict:
    return {
        "model_type": "internvl",
        "text_config": {"model_type": "qwen2", "vocab_size": 151674} | text,
        "vision_config": _INTERNVIT_300M,
        "tie_word_embeddings": False,
    }


def _qwen2_5_vl(text: dict, vocab_size: int, tied: bool) -> dict:
    return {
        "model_type": "qwen2_5_vl",
        "text_config": text | {"vocab_size": vocab_size, "tie_word_embeddings": tied},
        "vision_config": QWEN2_5_VIT | {"out_hidden_size": text["hidden_size"]},
        "tie_word_embeddings": tied,
    }


PUBLISHED: dict[str, dict] = {
    "OpenGVLab/InternVL3-2B-hf": _internvl3(_QWEN2_5_1_5B),
    "OpenGVLab/InternVL3-8B-hf": _internvl3(_QWEN2_5_7B),
    "Qwen/Qwen2.5-VL-3B-Instruct": _qwen2_5_vl(_QWEN2_5_3B, 151936, tied=True),
    "Qwen/Qwen2.5-VL-7B-Instruct": _qwen2_5_vl(_QWEN2_5_7B, 152064, tied=False),
}
