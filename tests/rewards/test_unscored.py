from __future__ import annotations

import pytest

from mixed_r1_ray.rewards.unscored import (
    MAX_REASONS,
    Unscored,
    UnscoredWarnings,
    count_by_source,
    find_unscored,
)
from mixed_r1_ray.types import RewardBreakdown


def sample(index: int, reason: str = "ValueError: bad", source: str = "shapes") -> Unscored:
    return Unscored(f"p{index}", source, index % 4, reason)


@pytest.fixture
def told():
    return []


def test_unscored_samples_of_a_group_are_found_by_their_place():
    scored = RewardBreakdown("chart", 0.0, 0.0, 0.0, "wrong")
    missing = RewardBreakdown("chart", None, None, None, "worker died")
    assert find_unscored("p", "charts", (scored, missing, scored, missing)) == [
        Unscored("p", "charts", 1, "worker died"),
        Unscored("p", "charts", 3, "worker died"),
    ]


def test_a_warning_names_prompt_sample_source_and_the_whole_reason(told):
    reason = "Traceback (most recent call last):\n  File \"mine.py\", line 3, in f\nKeyError: 'x'"
    UnscoredWarnings(told.append).add([Unscored("p7", "charts", 5, reason)])
    assert told == [
        f"1 sample was not scored so far for one reason; prompt 'p7', sample 5 (source charts): {reason}"
    ]


def test_one_reason_is_told_once_with_its_count_and_again_at_ten_times_as_many(told):
    warnings = UnscoredWarnings(told.append)
    for step in range(100):  # 3 a step: told at 3, at the first multiple of 3 from 30 on, and from 300 on
        warnings.add(sample(3 * step + i) for i in range(3))
    assert [text.split(" sample")[0] for text in told] == ["3", "30", "300"]


def test_reasons_that_differ_in_numbers_and_quotes_are_one_and_others_are_not(told):
    warnings = UnscoredWarnings(told.append)
    warnings.add([sample(1, "took 0.51 s at 0x7f2a, 'a'"), sample(2, "took 0.73 s at 0x11, 'b'")])
    warnings.add([sample(3, "raised")])
    assert len(told) == 2
    assert told[0].startswith("2 samples were") and "0x7f2a, 'a'" in told[0] and "raised" in told[1]


def test_a_function_with_ever_new_reasons_does_not_flood(told):
    warnings = UnscoredWarnings(told.append)
    for index in range(5000):
        warnings.add([sample(index, "bad " + "x" * (index + 1))])
    assert len(told) == MAX_REASONS + 1


def test_sources_are_counted_the_most_frequent_first():
    assert count_by_source([sample(1), sample(2, source="charts"), sample(3)]) == "shapes 2, charts 1"
