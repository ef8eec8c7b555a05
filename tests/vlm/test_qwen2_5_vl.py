"""Qwen2.5-VL's adapter: placeholders, native resolution, banned tokens, M-RoPE, boxes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from mixed_r1_ray.config import ModelConfig
from mixed_r1_ray.vlm.families import load_adapter
from mixed_r1_ray.vlm.qwen2_5_vl import Qwen2_5_VLAdapter


@pytest.fixture(scope="module")
def path(tiny_checkpoints) -> str:
    return tiny_checkpoints["qwen2_5_vl"]


@pytest.fixture(scope="module")
def adapter(path) -> Qwen2_5_VLAdapter:
    return load_adapter(ModelConfig(path=path))


def picture(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(width * height).integers(0, 255, (height, width, 3), dtype=np.uint8)


# (width, height) -> image tokens, at most 112 x 112 pixels: sides rounded to multiples of 28
TOKENS = {(112, 112): 16, (60, 100): 2 * 4, (57, 90): 2 * 3, (28, 28): 1, (600, 300): 5 * 2}


@pytest.mark.parametrize("sizes", [[], [(112, 112)], [(60, 100), (600, 300), (57, 90)], list(TOKENS)])
def test_prompt_text_has_one_placeholder_a_picture_and_encode_expands_each(adapter, sizes):
    text = adapter.prompt_text("Where is the red circle?", len(sizes), system="a square")
    assert text.count("<|image_pad|>") == text.count("<|vision_start|>") == len(sizes)
    inputs = adapter.encode(text, [picture(*size) for size in sizes])
    assert inputs.input_ids.dtype == np.int64 and inputs.input_ids.ndim == 1
    assert adapter.num_image_tokens(inputs) == sum(TOKENS[size] for size in sizes)
    assert set(inputs.pixels) == ({"pixel_values", "image_grid_thw"} if sizes else set())
    if sizes:
        assert len(inputs.pixels["pixel_values"]) == 4 * adapter.num_image_tokens(inputs)


def test_encoded_prompt_is_the_processors_own_chat_encoding(adapter):
    pictures = [picture(112, 112), picture(40, 90)]
    content = [{"type": "image", "image": image} for image in pictures] + [
        {"type": "text", "text": "Where is it?"}
    ]
    expected = adapter.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="np",
    )
    inputs = adapter.encode(adapter.prompt_text("Where is it?", 2), pictures)
    assert inputs.input_ids.tolist() == np.asarray(expected["input_ids"])[0].tolist()
    np.testing.assert_array_equal(inputs.pixels["pixel_values"], np.asarray(expected["pixel_values"]))


@pytest.mark.parametrize("token", ["<|image_pad|>", "<|vision_start|>", "<|video_pad|>"])
def test_question_that_holds_a_placeholder_is_refused(adapter, token):
    with pytest.raises(ValueError, match=token.replace("|", r"\|")):
        adapter.prompt_text(f"What does {token} mean?", 1)


def test_banned_tokens_are_the_media_tokens_and_nothing_a_policy_may_say(adapter):
    """With the special tokens of the real vocabulary, of which boxes and object names may be said."""
    processor = copy.deepcopy(adapter.processor)
    sayable = ["<|object_ref_start|>", "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<tool_call>"]
    processor.tokenizer.add_tokens(["<|vision_pad|>", *sayable], special_tokens=True)
    vocabulary = processor.tokenizer.get_vocab()
    media = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>")
    banned = Qwen2_5_VLAdapter(processor, vocabulary["<|image_pad|>"], adapter.config).banned_token_ids
    assert set(banned) == {vocabulary[token] for token in media}
    said = "<think>\nThe box (a) image_pad.</think><answer>[10, 20, 30, 40]</answer><|end|>" + "".join(
        sayable
    )
    assert not set(banned) & set(processor.tokenizer(said)["input_ids"])


@pytest.fixture(scope="module")
def full_size(adapter):
    """Makes the adapter with the image processor that real checkpoints ship: 56 x 56 to 3584 x 3584 pixels."""
    from transformers import Qwen2VLImageProcessor

    processor = copy.deepcopy(adapter.processor)
    processor.image_processor = Qwen2VLImageProcessor(
        size={"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 16384}
    )
    return lambda **limits: Qwen2_5_VLAdapter(processor, adapter.image_token_id, ModelConfig(**limits))


LIMITS = [
    {},
    {"max_pixels": 200_000},
    {"min_pixels": 500_000},
    {"min_pixels": 100_000, "max_pixels": 300_000},
]


@pytest.mark.parametrize("limits", LIMITS, ids=str)
@pytest.mark.parametrize("size", [(640, 480), (1000, 33), (3000, 2000), (29, 29), (1, 1), (90, 3)], ids=str)
def test_box_frame_is_the_size_that_the_image_processor_makes(full_size, size, limits):
    adapter = full_size(**limits)
    inputs = adapter.encode(adapter.prompt_text("Where?", 1), [picture(*size)])
    _, rows, columns = inputs.pixels["image_grid_thw"][0]
    frame = adapter.box_frame(*size)
    assert (frame.width, frame.height) == (columns * 14, rows * 14)
    assert frame.width % 28 == frame.height % 28 == 0


def test_box_frames_worked_out_by_hand(full_size):
    frame = full_size().box_frame(640, 480)
    assert (frame.width, frame.height) == (644, 476)  # 22.86 -> 23 and 17.14 -> 17 times 28
    frame = full_size(max_pixels=200_000).box_frame(640, 480)
    assert (frame.width, frame.height) == (
        504,
        364,
    )  # each side over sqrt(307200 / 200000) = 1.239, rounded down


def test_too_long_a_picture_is_refused_in_words(adapter):
    with pytest.raises(ValueError, match="aspect ratio"):
        adapter.encode(adapter.prompt_text("Where?", 1), [picture(2000, 5)])


def test_positions_of_two_pictures_among_text_are_those_of_mrope(path, adapter):
    """Text: all axes alike. A picture: one time step, its merged rows and columns, all from where the text stopped."""
    from mixed_r1_ray.policy.loading import load_policy

    model = load_policy(ModelConfig(path=path), 1.0).model
    inputs = adapter.encode(adapter.prompt_text("Where is it?", 2), [picture(60, 100), picture(112, 28)])
    grids = iter([(4, 2), (1, 4)])  # merged rows, columns
    expected, start, index = [], 0, 0
    while index < len(inputs.input_ids):
        if inputs.input_ids[index] == adapter.image_token_id:
            rows, columns = next(grids)
            expected += [
                (start, start + row, start + column) for row in range(rows) for column in range(columns)
            ]
            start, index = start + max(rows, columns), index + rows * columns
        else:
            expected.append((start, start, start))
            start, index = start + 1, index + 1
    pixels = {name: torch.from_numpy(array) for name, array in inputs.pixels.items()}
    positions, following = adapter.prompt_positions(model, torch.from_numpy(inputs.input_ids), pixels)
    assert [tuple(column) for column in positions.T.tolist()] == expected
    assert following == start


def test_positions_of_text_alone_count_tokens_on_three_axes(path, adapter):
    from mixed_r1_ray.policy.loading import load_policy

    model = load_policy(ModelConfig(path=path), 1.0).model
    positions, following = adapter.prompt_positions(model, torch.tensor([7, 8, 9]), {})
    assert positions.tolist() == [[0, 1, 2]] * 3
    assert following == 3
