"""The `reward` section of a configuration: what it may say, and that it reaches the rewards."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields

import pytest

from mixed_r1_ray.config import RewardConfig
from mixed_r1_ray.config_fields import help_text
from mixed_r1_ray.config_load import load_config
from mixed_r1_ray.errors import ConfigError
from mixed_r1_ray.rewards import RewardOptions, RewardSample, RewardScorer

NOT_FROM_A_CONFIG = {"progress", "bmas_idf"}  # the driver's, and a table


def load(*words: str) -> RewardConfig:
    return load_config(["conf=quickstart", *words]).reward


def refusal(*words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*words)
    return str(caught.value)


def test_every_option_can_be_set_and_has_one_default():
    section, options = RewardConfig(), RewardOptions()
    for field in fields(RewardOptions):
        if field.name not in NOT_FROM_A_CONFIG:
            assert getattr(section, field.name) == getattr(options, field.name), field.name


def test_what_a_config_says_reaches_the_options():
    words = {
        "chart_ordered": True,
        "bmas_baseline": 0.25,
        "bmas_repetition_penalty": 0.5,
        "bmas_length_penalty": 1.0,
        "bmas_drop_punctuation": True,
        "counting_mode": "relative",
    }
    options = RewardOptions.from_config(load(*(f"reward.{name}={value}" for name, value in words.items())))
    assert {name: getattr(options, name) for name in words} == words


def test_rewards_is_another_name_of_the_section_and_the_help_says_so():
    assert load("rewards.counting_mode=relative").counting_mode == "relative"
    assert "unknown key reward.countin_mode" in refusal("rewards.countin_mode=relative")
    assert "rewards.KEY" in help_text()


def test_a_scorer_made_from_a_config_uses_the_function_and_its_types(tmp_path):
    (tmp_path / "mine.py").write_text("def f(sample):\n    return 0.375")
    reward = load(f"reward.custom={tmp_path}/mine.py:f", "reward.custom_types=[counting,custom]")
    with RewardScorer.from_config(reward) as scorer:
        breakdowns = scorer.score(
            [RewardSample(kind, "<answer>3</answer>", "3") for kind in ("counting", "matching", "custom")]
        )
    assert [breakdown.task for breakdown in breakdowns] == [0.375, 1.0, 0.375]


def test_the_path_of_a_function_is_made_whole_and_an_entry_point_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("")
    monkeypatch.chdir(tmp_path)
    assert load("reward.custom=mine.py:f").custom == f"{tmp_path}/mine.py:f"
    assert load("reward.custom=judge").custom == "judge"


def test_types_and_files_that_do_not_exist_are_refused(tmp_path):
    assert "did you mean 'matching'?" in refusal("reward.custom=judge", "reward.custom_types=[matchin]")
    assert "there is no file" in refusal(f"reward.custom={tmp_path}/none.py:f")
    assert "give reward.custom" in refusal("reward.custom_types=[chart]")
    assert "reward.custom_timeout_s" in refusal("reward.custom_timeout_s=0")


def test_a_function_that_cannot_be_imported_ends_a_run_before_it_starts(tmp_path):
    (tmp_path / "mine.py").write_text("import no_such_package\n")
    words = ["conf=quickstart", f"reward.custom={tmp_path}/mine.py:f", f"run.dir={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "mixed_r1_ray.main", *words], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: reward.custom={tmp_path}/mine.py:f cannot be imported")
    assert "No module named 'no_such_package'" in done.stderr
    assert not (tmp_path / "quickstart").exists()
