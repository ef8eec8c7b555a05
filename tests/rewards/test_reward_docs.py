from __future__ import annotations

import doctest
import re
from pathlib import Path

from mixed_r1_ray.rewards import RewardSample, RewardScorer


PAGE = Path(__file__).parents[2] / "docs" / "rewards.md"


def test_the_file_of_the_custom_reward_example_works(tmp_path):
    (source,) = re.findall(r"```python\n(# length\.py\n.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "length.py").write_text(source)
    samples = [
        RewardSample("custom", f"<answer>{'word ' * count}</answer>", "a gold") for count in (0, 20, 40)
    ]
    with RewardScorer(custom=f"{tmp_path}/length.py:score") as scorer:
        breakdowns = scorer.score(samples)
    assert [breakdown.task for breakdown in breakdowns] == [1.0, 1.0, 0.5]
    assert breakdowns[2].detail == "40 words"


def test_the_examples_of_the_documentation_run():
    failed, tried = doctest.testfile(str(PAGE), module_relative=False)
    assert (failed, tried > 0) == (0, True)
