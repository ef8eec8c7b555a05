"""Quotas: whole numbers that add up, shortfalls that are filled from the nearest kin."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixed_r1_ray.data.quotas import apportion, fill, proportional, quota_faults, wanted_records
from mixed_r1_ray.errors import ConfigError


def test_shares_are_rounded_by_largest_remainder():
    # 10 x (.26, .26, .48) = 2.6, 2.6, 4.8: floors 2, 2, 4; the two left go to .8 and the first .6
    assert apportion(10, {"a": 0.26, "b": 0.26, "c": 0.48}, "types") == {"a": 3, "b": 2, "c": 5}


def test_numbers_shares_and_nulls_go_together():
    # 100 of 1,000 as a number, half as a share, and 400 left for two
    quotas = {"a": 100, "b": 0.5, "c": None, "d": None}
    assert apportion(1000, quotas, "types") == {"a": 100, "b": 500, "c": 200, "d": 200}


def test_one_is_a_record_and_one_point_is_the_whole():
    assert apportion(50, {"a": 1, "b": None}, "types") == {"a": 1, "b": 49}
    assert apportion(50, {"a": 1.0, "b": None}, "types") == {"a": 50, "b": 0}


@pytest.mark.parametrize("quotas", [{"a": 0.5, "b": 0.4}, {"a": 60, "b": 50}, {"a": 120, "b": None}])
def test_quotas_that_do_not_add_up_show_their_arithmetic(quotas):
    with pytest.raises(ConfigError, match=r"types: a \d+.* = \d+, but 100 are asked for"):
        apportion(100, quotas, "types")


def test_single_quotas_out_of_range_are_named():
    faults = list(
        quota_faults({"types.iou": 1.5, "types.chart": -3, "types.math": None, "types.matching": 4})
    )
    assert len(faults) == 2
    assert faults[0].startswith("types.iou.quota must be a whole number of records or a share")
    assert faults[1].startswith("types.chart.quota must not be negative")


def test_sources_divide_what_their_type_got():
    wanted = wanted_records(
        100, {"iou": 0.7, "chart": None}, {("iou", "a"): 0.5, ("iou", "b"): 0.5, ("chart", "c"): None}
    )
    assert wanted == {("iou", "a"): 35, ("iou", "b"): 35, ("chart", "c"): 30}


def test_a_shortfall_is_filled_by_the_same_type_first():
    wanted = {("iou", "a"): 30, ("iou", "b"): 10, ("chart", "c"): 60}
    found = {("iou", "a"): 5, ("iou", "b"): 100, ("chart", "c"): 1000}
    assert fill(wanted, found) == {("iou", "a"): 5, ("iou", "b"): 35, ("chart", "c"): 60}


def test_what_a_type_lacks_comes_from_the_others_in_proportion():
    wanted = {("iou", "a"): 40, ("chart", "c"): 40, ("matching", "d"): 20}
    found = {("iou", "a"): 10, ("chart", "c"): 1000, ("matching", "d"): 1000}
    # 30 are missing; they divide 20 to 10
    assert fill(wanted, found) == {("iou", "a"): 10, ("chart", "c"): 60, ("matching", "d"): 30}


def test_too_little_of_everything_takes_all():
    wanted = {("iou", "a"): 40, ("chart", "c"): 40}
    assert fill(wanted, {("iou", "a"): 3, ("chart", "c"): 4}) == {("iou", "a"): 3, ("chart", "c"): 4}


strata = st.tuples(st.sampled_from(["iou", "chart", "matching"]), st.sampled_from("abcd"))


@given(st.dictionaries(strata, st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1))
def test_filling_never_takes_more_than_there_is_and_wastes_nothing(numbers):
    wanted = {name: pair[0] for name, pair in numbers.items()}
    found = {name: pair[1] for name, pair in numbers.items()}
    taken = fill(wanted, found)
    usable = sum(
        found[name] for name in numbers if wanted[name]
    )  # a quota of 0 takes nothing, whatever is missing
    assert sum(taken.values()) == min(sum(wanted.values()), usable)
    assert all(0 <= taken[name] <= found[name] for name in numbers)


@given(st.integers(0, 10**6), st.lists(st.floats(0.01, 100), min_size=1, max_size=9))
def test_proportional_parts_add_up_and_are_within_one(total, weights):
    parts = proportional(total, dict(enumerate(weights)))
    assert sum(parts.values()) == total
    assert all(abs(parts[n] - total * weight / sum(weights)) < 1.001 for n, weight in enumerate(weights))
