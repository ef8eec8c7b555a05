"""InternVL's adapter: placeholders, tiles, banned tokens, positions, boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mixed_r1_ray.config import ModelConfig
from mixed_r1_ray.types import BoxFrame
from mixed_r1_ray.vlm.families import load_adapter
from mixed_r1_ray.vlm.internvl import InternVLAdapter

TOKENS_A_TILE = 16


@pytest.fixture(scope="module")
def path(tiny_checkpoints) -> str:
    return tiny_checkpoints["internvl"]


@pytest.fixture(scope="module")
def adapter(path) -> InternVLAdapter:
    return load_adapter(ModelConfig(path=path))


def picture(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(width * height).integers(0, 255, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("num_images", [0, 1, 3])
def test_prompt_text_has_one_placeholder_a_picture_and_encode_expands_each(adapter, num_images):
    text = adapter.prompt_text("Where is the red circle?", num_images, system="a square")
    assert text.count("<IMG_CONTEXT>") == num_images
    inputs = adapter.encode(text, [picture(50 + 10 * i, 80) for i in range(num_images)])
    assert inputs.input_ids.dtype == np.int64 and inputs.input_ids.ndim == 1
    assert adapter.num_image_tokens(inputs) == num_images * TOKENS_A_TILE
    assert len(inputs.pixels.get("pixel_values", ())) == num_images
    assert bool(inputs.pixels) == (num_images > 0)


@pytest.mark.parametrize(
    ("size", "max_tiles", "tiles"),
    [
        ((224, 112), None, 1),  # the tiny checkpoint's own limit
        ((224, 112), 1, 1),
        ((224, 112), 2, 3),  # 2 x 1 tiles and a thumbnail
        ((112, 336), 12, 4),  # 1 x 3 and a thumbnail
        ((112, 112), 12, 1),  # one tile needs no thumbnail
    ],
)
def test_max_tiles_bounds_the_tiles_of_a_picture(path, size, max_tiles, tiles):
    adapter = load_adapter(ModelConfig(path=path, max_tiles=max_tiles))
    inputs = adapter.encode(adapter.prompt_text("Where?", 1), [picture(*size)])
    assert len(inputs.pixels["pixel_values"]) == tiles
    assert adapter.num_image_tokens(inputs) == tiles * TOKENS_A_TILE


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


@pytest.mark.parametrize("size", [(1, 1), (50, 1), (50, 3), (3, 50)])
def test_a_picture_three_pixels_high_is_not_taken_for_three_channels(adapter, size):
    image = np.zeros((size[1], size[0], 3), np.uint8)
    image[..., 0] = 255  # red all over
    pixels = adapter.encode(adapter.prompt_text("Where?", 1), [image]).pixels["pixel_values"][0]
    red, green, blue = (np.unique(channel.round(4)) for channel in pixels)
    assert len(red) == len(green) == len(blue) == 1
    assert red > green == blue


def test_pictures_keep_the_order_of_their_placeholders(adapter):
    dark, bright = np.zeros((112, 112, 3), np.uint8), np.full((112, 112, 3), 255, np.uint8)
    inputs = adapter.encode(adapter.prompt_text("Where?", 2), [dark, bright])
    assert inputs.pixels["pixel_values"][0].max() < inputs.pixels["pixel_values"][1].min()


@pytest.mark.parametrize("token", ["<IMG_CONTEXT>", "<img>", "<image>"])
def test_question_that_holds_a_placeholder_is_refused(adapter, token):
    with pytest.raises(ValueError, match=token):
        adapter.prompt_text(f"{token}\nWhat is this?", 1)


def test_banned_tokens_are_the_media_tokens_and_nothing_a_policy_may_say(adapter):
    vocabulary = adapter.tokenizer.get_vocab()
    media = {vocabulary[token] for token in ("<IMG_CONTEXT>", "<img>", "</img>", "<video>")}
    assert set(adapter.banned_token_ids) == media
    said = "<think>\nThe box < 3, (a) img.</think><answer>[10, 20, 30, 40]</answer><|end|>"
    assert not media & set(adapter.tokenizer(said)["input_ids"])
    assert adapter.tokenizer.eos_token_id not in adapter.banned_token_ids


def test_a_placeholder_known_only_by_its_id_is_banned_too(adapter):
    other = InternVLAdapter(adapter.processor, image_token_id=5, config=adapter.config)
    assert {5} | set(adapter.banned_token_ids) == set(other.banned_token_ids)


def test_positions_count_tokens_on_one_axis(adapter):
    positions, following = adapter.prompt_positions(None, torch.tensor([3, 1, 4, 1]), {})
    assert positions.tolist() == [[0, 1, 2, 3]]
    assert following == 4


@pytest.mark.parametrize("size", [(640, 480), (1000, 33), (3000, 2000), (1, 1)])
def test_boxes_are_in_thousandths_of_each_axis(adapter, size):
    assert adapter.box_frame(*size) == BoxFrame(1000.0, 1000.0)


def test_features_are_one_a_placeholder_in_the_order_of_tiles(path, adapter):
    from mixed_r1_ray.policy.loading import load_policy

    model = load_policy(ModelConfig(path=path), 1.0).model
    inputs = adapter.encode(adapter.prompt_text("Where?", 2), [picture(112, 112), picture(40, 90)])
    pixels = torch.from_numpy(inputs.pixels["pixel_values"])
    with torch.no_grad():
        features = adapter.image_features(model, {"pixel_values": pixels})
        second = adapter.image_features(model, {"pixel_values": pixels[1:]})
    assert features.shape == (2 * TOKENS_A_TILE, model.config.text_config.hidden_size)
    torch.testing.assert_close(features[TOKENS_A_TILE:], second)
