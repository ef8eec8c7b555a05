"""docs/algorithms.md: its settings load, and it speaks of every key of `algo` and of no other."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from mixed_r1_ray.config import AlgoConfig
from mixed_r1_ray.config_load import load_config

PAGE = (Path(__file__).parents[2] / "docs" / "algorithms.md").read_text()
RECIPES = [line.split() for line in PAGE.splitlines() if line.startswith("    algo.")]
NAMES = {"None": "null", "False": "false"}
KEYS = {field.name for field in fields(AlgoConfig)}


@pytest.mark.parametrize("words", RECIPES, ids=" ".join)
def test_recipes_load(words):
    load_config(["conf=quickstart", *words])


def test_page_has_a_recipe_for_every_loss():
    assert {word.partition("=")[2] for recipe in RECIPES for word in recipe if word.startswith("algo.loss=")} == {
        "grpo", "dapo", "dr_grpo", "gspo", "cispo"
    }  # fmt: skip


def test_page_names_every_key_and_no_other():
    assert set(re.findall(r"\balgo\.([a-z_]+)", PAGE)) == KEYS


def test_defaults_in_brackets_are_the_configurations():
    told = dict(re.findall(r"`algo\.([a-z_]+)` \(`?([\w.]*\w)", PAGE))
    assert len(told) >= 10
    for key, text in told.items():
        default = getattr(AlgoConfig(), key)
        assert text == NAMES.get(repr(default)) or text == default or float(text) == default, key
