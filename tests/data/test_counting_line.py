"""Long work says how far it is, without a flood where there is no terminal."""

from __future__ import annotations

import pytest

from mixed_r1_ray.data import counting_line
from mixed_r1_ray.data.counting_line import counting


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the line believes to have passed."""
    now = [100.0]
    monkeypatch.setattr(counting_line.time, "monotonic", lambda: now[0])
    return now


def test_plain_lines_come_every_ten_seconds_and_at_the_end_with_the_time_left(clock, capsys):
    with counting("answering", "records") as count:
        for seconds, done in ((0, 200), (1, 210), (9, 280), (10, 300), (15, 400), (20, 500), (40, 1000)):
            clock[0] = 100.0 + seconds
            count(done, 1000)
    assert capsys.readouterr().err.splitlines() == [
        "answering: 200 of 1,000 records",
        "answering: 300 of 1,000 records, 1m10s left",  # 100 in 10 s: what was there before does not count
        "answering: 500 of 1,000 records, 33s left",
        "answering: 1,000 of 1,000 records, 40s",
    ]


def test_nothing_to_do_is_said_once(clock, capsys):
    with counting("looking at pictures", "records") as count:
        count(5, 5)
    assert capsys.readouterr().err == "looking at pictures: 5 of 5 records\n"
