"""Golds that cannot be read are errors of the data, and say why."""

from __future__ import annotations

import pytest

from mixed_r1_ray.rewards import GoldError, validate_gold

CHOICES = ("a dog", "a cat")


@pytest.mark.parametrize(
    ("reward_type", "gold", "keywords", "reason"),
    [
        ("matching", "", {}, "empty"),
        ("matching", "  ", {}, "empty"),
        ("matching", "?!", {}, "nor any word"),
        ("matching", "C", {"choices": CHOICES}, "none of the choices"),
        ("matching", "a bird", {"choices": CHOICES}, "none of the choices"),
        ("matching", "B. a dog", {"choices": CHOICES}, "none of the choices"),
        ("matching", "RED", {"choices": ("red", "Red", "blue")}, "more than one"),
        ("matching", "B", {"choices": ("B", "A")}, "more than one"),
        ("matching", "word " * 100, {}, "open_ended"),
        ("matching", '["a", 3]', {}, "something else than texts"),
        ("chart", "nan", {}, "neither a finite number nor a text"),
        ("chart", "inf", {}, "neither a finite number nor a text"),
        ("chart", "...", {}, "neither a finite number nor a text"),
        ("chart", "[]", {}, "empty list"),
        ("chart", "[NaN, 3]", {}, "neither a finite number nor a text"),
        ("iou", "[1, 2, 3]", {}, "no box"),
        ("iou", "[3, 2, 1, 4]", {}, "no box"),
        ("iou", "[1, 2, 1, 4]", {}, "no box"),
        ("iou", "[1, 2, NaN, 4]", {}, "no box"),
        ("iou", "[]", {}, "no box"),
        ("iou", "[[1, 2, 3, 4], [1, 2]]", {}, "no box"),
        ("iou", "1, 2, 3, 4", {}, "not JSON"),
        ("iou", "[" * 100_000, {}, "not JSON"),
        ("iou", "[0, 0, 700, 100]", {"image_size": (640, 480)}, "outside the image"),
        ("iou", "[-9, 0, 70, 100]", {"image_size": (640, 480)}, "outside the image"),
        ("counting", "3.5", {}, "no whole number"),
        ("counting", "3 or 4", {}, "several numbers"),
        ("counting", "many", {}, "no number"),
        ("counting", "-1", {}, "no whole number"),
        ("custom", " ", {}, "empty"),
        ("chart", '{"any_of": []}', {}, "empty"),
        ("chart", '{"any_of": "Red"}', {}, "empty, or a list"),
        ("chart", '{"any_of": ["Red", null]}', {}, "something else"),
        ("chart", '{"any_of": ["Red"], "or": 1}', {}, "something else"),
        ("chart", '{"any_of": ["Red"', {}, "not JSON"),
        ("counting", '{"any_of": [3, 4.5]}', {}, "no whole number"),
        ("matching", '{"any_of": [["a"]]}', {}, "something else"),
        ("open_ended", '{"any_of": ["a", ""]}', {}, "empty"),
        ("open_ended", "\n", {}, "empty"),
        ("open_ended", '["a", ""]', {}, "empty"),
    ],
)
def test_unreadable_gold_is_refused(reward_type, gold, keywords, reason):
    with pytest.raises(GoldError, match=reason):
        validate_gold(reward_type, gold, **keywords)


@pytest.mark.parametrize(
    ("reward_type", "gold", "keywords"),
    [
        ("matching", "a cat", {"choices": CHOICES}),
        ("matching", "(b)", {"choices": list(CHOICES)}),
        ("matching", "7", {"choices": ("3", "7")}),
        ("matching", "no", {}),
        ("chart", "[Red, 3]", {}),
        ("chart", "18-24", {}),
        ("iou", "[0, 0, 640, 480]", {"image_size": (640, 480)}),
        ("iou", '{"bbox_2d": [1, 2, 3, 4], "label": "x"}', {}),
        ("open_ended", "[sic] A dog.", {}),
        ("open_ended", '{"any_of": ["A dog.", "A small dog."]}', {}),
        ("chart", '{"any_of": [3, "three", ["Red", "Blue"]]}', {}),
        ("chart", '{"other": 1}', {}),
        ("counting", '{"any_of": [3, "four"]}', {}),
        ("custom", "whatever the function reads", {}),
    ],
)
def test_readable_gold_passes(reward_type, gold, keywords):
    validate_gold(reward_type, gold, **keywords)
