from __future__ import annotations

import itertools

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from mixed_r1_ray.rewards import score
from mixed_r1_ray.rewards.iou import box_iou, dynamic_threshold

side = st.floats(0, 1000, allow_nan=False, width=32)
box = st.tuples(side, side, side, side)
real_box = st.tuples(side, side, st.floats(0.5, 500), st.floats(0.5, 500)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@given(real_box, real_box)
def test_equals_shapely(a, b):
    one, other = shapely.box(*a), shapely.box(*b)
    assert box_iou(a, b) == pytest.approx(one.intersection(other).area / one.union(other).area, abs=1e-9)


@given(box, box)
def test_symmetric_and_in_range_whatever_the_corners(a, b):
    assert box_iou(a, b) == box_iou(b, a)
    assert 0.0 <= box_iou(a, b) <= 1.0 + 1e-12


@given(real_box, real_box, st.floats(0.01, 100), st.floats(0.01, 100))
def test_the_same_in_every_scale(a, b, width, height):
    def scaled(corners):
        return tuple(np.array(corners) * [width, height, width, height])

    assert box_iou(scaled(a), scaled(b)) == pytest.approx(box_iou(a, b), abs=1e-6)


@settings(deadline=None, max_examples=60)
@given(st.lists(real_box, min_size=1, max_size=4), st.lists(real_box, min_size=1, max_size=4))
def test_several_boxes_are_paired_for_the_largest_sum(predicted, gold):
    few, many = sorted((predicted, gold), key=len)
    sums = (sum(map(box_iou, few, order)) for order in itertools.permutations(many, len(few)))
    expected = max(sums) / len(many)
    response = f"<answer>{[list(corners) for corners in predicted]}</answer>"
    assert score("iou", response, str([list(corners) for corners in gold])).task == pytest.approx(
        expected, abs=1e-9
    )


def test_thresholds_rise_with_training():
    assert [dynamic_threshold(progress) for progress in (0, 0.09, 0.11, 0.24, 0.26, 1)] == [
        0.85,
        0.85,
        0.95,
        0.95,
        0.99,
        0.99,
    ]
