"""Tokens and frames of pictures of any size, with image processors set as the published checkpoints set them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mixed_r1_ray.config import ModelConfig
from mixed_r1_ray.scale.architecture import parse_architecture
from mixed_r1_ray.scale.published import PUBLISHED
from mixed_r1_ray.vlm.families import load_adapter
from mixed_r1_ray.vlm.internvl import InternVLAdapter
from mixed_r1_ray.vlm.qwen2_5_vl import Qwen2_5_VLAdapter

sides = st.integers(1, 4000)
PIXELS = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 16384}  # preprocessor_config.json of Qwen2.5-VL
# Well apart: from a limit below, sides are rounded up, and never mind the one above.
limits = st.tuples(st.none() | st.integers(784, 100_000), st.none() | st.integers(300_000, 20_000_000))


@pytest.fixture(scope="module")
def qwen(tiny_checkpoints):
    """Makes the adapter with the picture limits given."""
    from transformers import Qwen2VLImageProcessor

    adapter = load_adapter(ModelConfig(path=tiny_checkpoints["qwen2_5_vl"]))
    processor = copy.copy(adapter.processor)
    processor.image_processor = Qwen2VLImageProcessor(size=PIXELS)
    return lambda least, most: Qwen2_5_VLAdapter(
        processor, adapter.image_token_id, ModelConfig(min_pixels=least, max_pixels=most)
    )


@given(sides, sides, limits)
@example(4000, 20, (None, None))  # the longest that is taken
@example(1, 1, (100_000, 300_000))
def test_a_box_frame_is_the_picture_whose_patches_the_processor_counts(qwen, width, height, limits):
    adapter = qwen(*limits)
    images, bounds = adapter.processor.image_processor, adapter.processor_kwargs()
    if max(width, height) > 200 * min(width, height):
        with pytest.raises(ValueError, match="aspect ratio"):
            adapter.box_frame(width, height)
        return
    frame = adapter.box_frame(width, height)
    patches = images.get_number_of_image_patches(height, width, {"size": None} | bounds)
    assert frame.width % 28 == frame.height % 28 == 0
    assert frame.width * frame.height == 14 * 14 * patches
    cap = parse_architecture(PUBLISHED["Qwen/Qwen2.5-VL-3B-Instruct"]).picture_tokens(None, limits[1])
    assert cap is None or patches // 4 <= cap  # what memory is planned for


@settings(max_examples=15)
@given(st.integers(1, 700), st.integers(4, 700), st.sampled_from([(None, 50_000), (3_000, 60_000)]))
def test_encoding_makes_that_picture(qwen, width, height, limits):
    adapter = qwen(*limits)
    if max(width, height) > 200 * min(width, height):
        return
    inputs = adapter.encode(adapter.prompt_text("Where?", 1), [np.zeros((height, width, 3), np.uint8)])
    _, rows, columns = inputs.pixels["image_grid_thw"][0]
    frame = adapter.box_frame(width, height)
    assert (frame.width, frame.height) == (14 * columns, 14 * rows)
    assert adapter.num_image_tokens(inputs) == rows * columns // 4


@pytest.fixture(scope="module")
def internvl(tiny_checkpoints):
    """Makes the adapter with that many tiles at most; tiles of 448 pixels and 256 tokens."""
    from transformers import GotOcr2ImageProcessor

    adapter = load_adapter(ModelConfig(path=tiny_checkpoints["internvl"]))
    processor = copy.copy(adapter.processor)
    processor.image_processor = GotOcr2ImageProcessor(
        size={"height": 448, "width": 448}, crop_to_patches=True, min_patches=1, max_patches=12
    )
    processor.image_seq_length = 256
    return lambda most: InternVLAdapter(processor, adapter.image_token_id, ModelConfig(max_tiles=most))


def tiles_of(width: int, height: int, most: int) -> int:
    """InternVL's dynamic_preprocess (Chen et al. 2024, arXiv 2404.16821): the grid of the nearest aspect ratio.

    Of two as near the later one by number of tiles, if the picture has more than half the pixels of its tiles; and a
    thumbnail beside several.
    """
    grids = [(i, j) for i in range(1, most + 1) for j in range(1, most + 1) if i * j <= most]
    best, nearest = (1, 1), float("inf")
    for i, j in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        away = abs(width / height - i / j)
        if away < nearest:
            best, nearest = (i, j), away
        elif away == nearest and width * height > 0.5 * 448 * 448 * i * j:
            best = (i, j)
    count = best[0] * best[1]
    return count + 1 if count > 1 else 1


@given(sides, sides, st.integers(1, 12))
@example(3000, 1000, 3)
@example(4000, 1, 12)
def test_tiles_are_those_of_the_papers_rule(internvl, width, height, most):
    adapter = internvl(most)
    images = adapter.processor.image_processor
    tiles = images.get_number_of_image_patches(height, width, {"crop_to_patches": True} | adapter.processor_kwargs())
    assert tiles == tiles_of(width, height, most)
    cap = parse_architecture(PUBLISHED["OpenGVLab/InternVL3-2B-hf"]).picture_tokens(most, None)
    assert 256 * tiles <= cap  # what memory is planned for


@settings(max_examples=10)
@given(st.integers(1, 900), st.integers(1, 900), st.integers(1, 5))
def test_encoding_makes_those_tiles(internvl, width, height, most):
    adapter = internvl(most)
    inputs = adapter.encode(adapter.prompt_text("Where?", 1), [np.zeros((height, width, 3), np.uint8)])
    assert len(inputs.pixels["pixel_values"]) == tiles_of(width, height, most)
    assert inputs.pixels["pixel_values"].shape[1:] == (3, 448, 448)
    assert adapter.num_image_tokens(inputs) == 256 * tiles_of(width, height, most)


def test_the_cap_on_tiles_is_reached():
    cap = parse_architecture(PUBLISHED["OpenGVLab/InternVL3-2B-hf"]).picture_tokens
    assert [256 * tiles_of(4000, 3000, most) for most in (1, 12)] == [cap(1, None), cap(12, None)]
