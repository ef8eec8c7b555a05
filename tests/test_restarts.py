"""Restarts: bounded in a row, with pauses that grow."""

from __future__ import annotations

import pytest

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.restarts import Restarts

BOOM = ValueError("boom")


def test_pauses_double_up_to_half_a_minute():
    pauses = []
    restarts = Restarts(8, pauses.append)
    for _ in range(8):
        restarts.failed("rollout[0]", BOOM)
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]


def test_too_many_in_a_row_stop_with_who_how_often_the_key_and_why():
    restarts = Restarts(2, lambda seconds: None)
    restarts.failed("rollout[0]", BOOM)
    restarts.failed("rollout[0]", BOOM)
    with pytest.raises(UserError, match=r"rollout\[0\] failed 3 times in a row \(cluster.max_restarts 2\).*boom"):
        restarts.failed("rollout[0]", BOOM)


def test_something_good_in_between_begins_the_count_anew():
    restarts = Restarts(1, lambda seconds: None)
    for _ in range(5):
        restarts.failed("rollout[0]", BOOM)
        restarts.worked()


def test_none_allowed_stops_at_the_first():
    with pytest.raises(UserError, match="failed 1 times in a row"):
        Restarts(0).failed("the run", BOOM)
