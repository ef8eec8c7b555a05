"""Looks: what encoding and resizing change is seen through, another picture is not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from engine_cases import bars, encoded, photo, reencoded
from PIL import Image

from mixed_r1_ray.data.engine.looks import COPY_BYTES, look_at, same_picture
from mixed_r1_ray.data.engine.settings import PictureSettings
from mixed_r1_ray.data.images import decode_image

DEFAULT = PictureSettings()
PICTURES = {"photo": photo(1), "chart": bars((80, 30, 55)), "blank chart": bars((0, 0, 0))}


def same(left: bytes, right: bytes) -> bool:
    mine, theirs = (look_at(decode_image(one)) for one in (left, right))
    copies = (np.frombuffer(one.copy, np.uint8).reshape(1, COPY_BYTES) for one in (mine, theirs))
    bits = bin(mine.phash ^ theirs.phash).count("1")
    return bits <= DEFAULT.distance and bool(same_picture(*copies, DEFAULT.pixel_difference)[0])


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("way", reencoded(PICTURES["photo"]))
def test_a_picture_saved_anew_is_the_same(name, way):
    assert same(encoded(PICTURES[name]), reencoded(PICTURES[name])[way])


CHARTS = (80, 30, 55), (80, 30, 51), (80, 34, 55), (30, 80, 55)


@pytest.mark.parametrize("one, other", [*itertools.combinations(CHARTS, 2)])
def test_charts_whose_bars_differ_are_not_the_same(one, other):
    assert not same(encoded(bars(one)), encoded(bars(other)))
    assert not same(encoded(bars(one)), encoded(bars(other), "JPEG", quality=60))


def test_hashes_alone_would_take_one_chart_for_another():
    one, other = (look_at(np.asarray(bars(heights))) for heights in ((80, 30, 55), (80, 30, 51)))
    assert bin(one.phash ^ other.phash).count("1") <= DEFAULT.distance


def test_photos_with_one_new_thing_in_them_are_not_the_same():
    changed = photo(1)
    changed.paste((255, 0, 0), (90, 50, 125, 85))
    assert not same(encoded(photo(1)), encoded(changed))


def test_brightness_and_twice_as_much_colour_may_differ():
    flat = np.full((1, COPY_BYTES), 100, np.uint8)
    for place, allowed in ((0, 16), (1, 32), (2, 32), (COPY_BYTES - 3, 16)):
        for amount in (allowed, allowed + 1):
            other = flat.copy()
            other[0, place] += amount
            assert same_picture(flat, other, 16)[0] == (amount == allowed)


def test_another_colour_of_the_same_brightness_is_another_picture():
    one, other = np.full((40, 40, 3), 255, np.uint8), np.full((40, 40, 3), 255, np.uint8)
    one[10:30, 10:30], other[10:30, 10:30] = (200, 60, 60), (60, 129, 60)  # 101.9 both
    assert not same(encoded(Image.fromarray(one)), encoded(Image.fromarray(other)))
