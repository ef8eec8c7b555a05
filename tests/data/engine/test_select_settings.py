"""Settings of `select`: what YAML and command line may say, and how they are told what is wrong."""

from __future__ import annotations

import pytest

from mixed_r1_ray.data.engine.settings import SelectSettings, load_settings, settings_to_yaml
from mixed_r1_ray.errors import ConfigError
from mixed_r1_ray.types import REWARD_TYPES


def load(tmp_path, text: str, *words: str) -> SelectSettings:
    (tmp_path / "select.yaml").write_text(text)
    return load_settings(str(tmp_path / "select.yaml"), words)


@pytest.mark.parametrize("name", ["select", "select_quickstart"])
def test_the_files_that_come_with_it_are_right(name):
    settings = load_settings(name)
    assert set(settings.difficulty.bands) == set(REWARD_TYPES)


def test_select_yaml_says_the_defaults():
    assert load_settings("select") == SelectSettings()


def test_the_command_line_wins_and_the_rest_has_its_default(tmp_path):
    words = "duplicates.near=false", "difficulty.bands.math.mean=[0.2,0.8]", "difficulty.samples=4"
    settings = load(tmp_path, "difficulty: {samples: 16, conf: quickstart}", *words)
    assert not settings.duplicates.near and settings.duplicates.exact
    assert settings.difficulty.samples == 4 and settings.difficulty.conf == "quickstart"
    assert settings.difficulty.bands["math"].mean == [0.2, 0.8]
    assert settings.difficulty.bands["chart"].mean == [0.1, 0.9]


def test_what_is_written_is_read_back(tmp_path):
    settings = load(tmp_path, "pictures: {distance: 3}\ncontamination: {match: picture_and_question}")
    assert load(tmp_path, settings_to_yaml(settings)) == settings


@pytest.mark.parametrize(
    "text, words, message",
    [
        ("duplicate: {exact: true}", (), "unknown key duplicate; did you mean duplicates?"),
        ("difficulty: {sample: 8}", (), "unknown key difficulty.sample; did you mean samples?"),
        ("{}", ("duplicates.exakt=false",), "unknown key duplicates.exakt; did you mean exact?"),
        ("pictures: {distance: 12}", (), "pictures.distance must be .*<= 11, not 12"),
        ("difficulty: {samples: 1}", (), "difficulty.samples must be .*>= 2, not 1"),
        ("difficulty: {bands: {iou: {min_std: 2}}}", (), "difficulty.bands.iou.min_std must be .*, not 2"),
        ("difficulty: {bands: {iou: {mean: [0.9, 0.1]}}}", (), r"bands.iou.mean must be \[least, most\]"),
        ("difficulty: {bands: {box: {mean: [0, 1]}}}", (), "difficulty.bands.box: is none of matching"),
        ("contamination: {match: pictures}", (), "contamination.match"),
        ("- a", (), "expected keys at the top level"),
        ("a: [", (), "not readable as YAML"),
    ],
)
def test_mistakes_are_named(tmp_path, text, words, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text, *words)
