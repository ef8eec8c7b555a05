"""Recipes: what may be said, and how a mistake is named."""

from __future__ import annotations

import pytest

from mixed_r1_ray.data.recipe import load_recipe, recipe_to_yaml
from mixed_r1_ray.errors import ConfigError

GOOD = """
name: small
size: 100
types:
  matching:
    quota: 0.5
    pass_rate: [0.1, 0.9]
    sources:
      vsr: {license: Apache-2.0, quota: 30}
      ai2d: {license: CC BY-SA 4.0}
  iou:
    sources:
      refcoco: {license: none}
"""


def written(tmp_path, text: str) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return str(path)


def complaint(tmp_path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_recipe(written(tmp_path, text))
    return str(caught.value)


def test_a_recipe_is_read_and_written_back_to_the_same(tmp_path):
    recipe = load_recipe(written(tmp_path, GOOD))
    assert [name for name, _ in recipe.strata()] == [
        ("matching", "vsr"),
        ("matching", "ai2d"),
        ("iou", "refcoco"),
    ]
    assert recipe.types["matching"].sources["vsr"].quota == 30
    assert isinstance(recipe.types["matching"].quota, float)
    assert load_recipe(written(tmp_path, recipe_to_yaml(recipe))) == recipe


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("size: 100", "sise: 100", "unknown key sise; did you mean size?"),
        ("pass_rate", "pass_rates", "unknown key types.matching.pass_rates; did you mean pass_rate?"),
        ("{license: none}", "{licence: none}", "licence; did you mean license?"),
        ("{license: none}", "{}", "license is missing"),
        ("size: 100", "size: 0", "size must be int >= 1, not 0"),
        ("size: 100", "size: many", "size: "),
        ("name: small", "", "name is missing"),
        ("  iou:", "  boxes:", "types.boxes: is none of matching, chart, iou"),
        ("quota: 0.5", "quota: 1.5", "types.matching.quota must be a whole number"),
        ("quota: 30", "quota: -30", "types.matching.sources.vsr.quota must not be negative"),
        ("[0.1, 0.9]", "[0.9, 0.1]", "types.matching.pass_rate must be [least, most]"),
        ("[0.1, 0.9]", "[0.1]", "types.matching.pass_rate must be [least, most]"),
        ("size: 100", "size: 100\nshortfall: ignore", "shortfall"),
        ("types:", "types: [", "not readable as YAML"),
    ],
)
def test_each_mistake_names_the_file_and_the_key(tmp_path, old, new, said):
    message = complaint(tmp_path, GOOD.replace(old, new, 1))
    assert message.startswith(str(tmp_path / "recipe.yaml"))
    assert said in message


def test_no_types_and_no_sources_are_refused(tmp_path):
    assert "types names no reward type" in complaint(tmp_path, "name: a\nsize: 3\n")
    assert "types.iou.sources names no source" in complaint(
        tmp_path, "name: a\nsize: 3\ntypes: {iou: {quota: 1.0}}\n"
    )


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ConfigError, match="unknown; there are .*mixed_45k"):
        load_recipe("mixed_54k")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="there is no such file"):
        load_recipe(str(tmp_path / "none.yaml"))


def test_mixed_45k_asks_for_45000_of_sources_that_can_be_converted():
    from mixed_r1_ray.data.converters import CONVERTERS
    from mixed_r1_ray.data.quotas import wanted_records

    recipe = load_recipe("mixed_45k")
    wanted = wanted_records(
        recipe.size,
        {kind: of_type.quota for kind, of_type in recipe.types.items()},
        {name: source.quota for name, source in recipe.strata()},
    )
    assert sum(wanted.values()) == 45_000
    assert min(wanted.values()) > 0
    converters = {"chartqa" if source.startswith("chartqa_") else source for _, source in wanted}
    assert converters <= set(CONVERTERS)
    assert all(source.url and source.note.startswith("Choice") for _, source in recipe.strata())
