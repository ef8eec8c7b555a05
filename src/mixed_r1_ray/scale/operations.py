"""Floating-point operations of a forward pass, and bytes of a decode step. A multiply-add is two operations."""

from __future__ import annotations

from .architecture import Language, Vision
from .memory import PackedRow

FULL_ATTENTION_LAYERS = 1 / 8  # of Qwen2.5-VL's tower: 4 of 32; the others look at windows of 64 patches
WINDOW_PATCHES = 64


def forward_flops(language: Language, row: PackedRow) -> float:
    """The language model over one packed row; scores over the vocabulary for its response tokens only."""
    matrices = 2 * language.layers * language.layer_parameters * row.tokens
    scores = 2 * language.embedding_parameters * row.scored
    pairs = row.prompt**2 / 2 + row.scored * (row.prompt + row.length / 2)
    return matrices + scores + 4 * language.width * language.layers * pairs


def vision_flops(vision: Vision, picture_tokens: int) -> float:
    """Tower and projector over one prompt's pictures."""
    patches = picture_tokens * vision.patches_per_token
    tile = vision.tile_tokens and vision.tile_tokens * vision.patches_per_token
    seen = tile or FULL_ATTENTION_LAYERS * patches + (1 - FULL_ATTENTION_LAYERS) * WINDOW_PATCHES
    attention = 4 * vision.width * vision.layers * patches * seen
    return 2 * vision.parameters * patches + 2 * vision.projector_parameters * picture_tokens + attention


def decode_flops(language: Language, context: float) -> float:
    """One new token that attends to `context` earlier ones."""
    matrices = language.layers * language.layer_parameters + language.embedding_parameters
    return 2 * matrices + 4 * language.width * language.layers * context


def decode_bytes(language: Language, batch: float, context: float, number: int) -> float:
    """Read in one decode step of `batch` sequences: every weight once, every sequence's keys and values."""
    weights = language.layers * language.layer_parameters + language.embedding_parameters
    return number * weights + batch * context * language.kv_bytes(number)
