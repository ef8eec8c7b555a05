"""A vision-language model small enough to count its operations by hand."""

from __future__ import annotations

from mixed_r1_ray.scale.architecture import Architecture, Language, Vision

LANGUAGE = Language(width=4, mlp_width=8, layers=2, heads=2, kv_heads=1, vocabulary=10, tied=False)
VISION = Vision(
    width=4,
    layers=1,
    parameters=100,
    projector_parameters=20,
    patches_per_token=4,
    values_per_patch=12,
    tile_tokens=1,
    token_pixels=16,
)
SMALL = Architecture("internvl", LANGUAGE, VISION)
