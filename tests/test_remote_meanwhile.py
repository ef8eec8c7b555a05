"""Work done while an answer is awaited: as long as it is not there, and no longer."""

from __future__ import annotations

import pytest
from ray.exceptions import GetTimeoutError, RayTaskError

from mixed_r1_ray import remote


class Answer:
    """Is there, or has failed, after so many looks at it."""

    def __init__(self, looks: int, error: Exception | None = None):
        self.looks, self.error = looks, error

    def get(self, refs, timeout):
        assert refs == [self] and 0 < timeout < 1
        self.looks -= 1
        if self.looks >= 0:
            raise GetTimeoutError
        if self.error:
            raise self.error


@pytest.mark.parametrize("error", [None, RayTaskError("update", "boom", ValueError("boom"))])
@pytest.mark.parametrize("looks", [0, 1, 5])
def test_works_until_the_answer_is_there_or_has_failed(monkeypatch, looks, error):
    answer, worked = Answer(looks, error), []
    monkeypatch.setattr(remote.ray, "get", answer.get)
    left = remote.work_until_made([answer], lambda: worked.append(1), deadline_s=60.0)
    assert len(worked) == looks and 50 < left <= 60


def test_stops_at_the_deadline(monkeypatch):
    answer = Answer(looks=10**9)
    monkeypatch.setattr(remote.ray, "get", answer.get)
    assert remote.work_until_made([answer], lambda: None, deadline_s=0.05) == 0.0


def test_what_the_work_raises_comes_through(monkeypatch):
    def work():
        raise ValueError("a group of the wrong version")

    answer = Answer(looks=3)
    monkeypatch.setattr(remote.ray, "get", answer.get)
    with pytest.raises(ValueError, match="wrong version"):
        remote.work_until_made([answer], work, deadline_s=60.0)
