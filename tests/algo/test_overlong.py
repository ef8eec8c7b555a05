"""The soft overlong penalty."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixed_r1_ray.algo.overlong import soft_overlong_penalty


@pytest.mark.parametrize(
    ("length", "penalty"), [(1, 0.0), (80, 0.0), (81, -0.05), (90, -0.5), (100, -1.0), (150, -1.0)]
)
def test_golden_values_at_limit_100_and_buffer_20(length, penalty):
    assert soft_overlong_penalty(length, 100, 20) == pytest.approx(penalty, abs=1e-12)


@given(st.integers(1, 200), st.integers(1, 200), st.data())
def test_equals_the_three_cases_of_the_formula(length, limit, data):
    buffer = data.draw(st.integers(1, limit))
    if length <= limit - buffer:
        expected = 0.0
    elif length <= limit:
        expected = ((limit - buffer) - length) / buffer
    else:
        expected = -1.0
    assert soft_overlong_penalty(length, limit, buffer) == pytest.approx(expected)
