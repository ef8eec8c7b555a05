"""The driver where an update finds engine and trainer apart: it looks for the cause before it stops."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mixed_r1_ray.config import Config
from mixed_r1_ray.driver import Driver
from mixed_r1_ray.guard import MismatchError, NumericsError
from mixed_r1_ray.types import TrainBatch

BATCH = TrainBatch(step=3, groups=(), num_samples=0, num_tokens=0)


def driver(error: Exception, max_staleness: int = 0) -> Driver:
    """Whose learners answer an update with `error`."""

    def update(batch, meanwhile):
        raise error

    config = Config()
    config.algo.max_staleness = max_staleness
    parts = SimpleNamespace(
        learners=SimpleNamespace(update=update), sampler=SimpleNamespace(pipeline=SimpleNamespace(advance=None))
    )
    return Driver(config, parts, journal=None)


def test_a_mismatch_is_proved_again_and_stops_with_the_cause(monkeypatch):
    def prove(self, step):
        raise MismatchError(f"step {step}: temperature")

    monkeypatch.setattr(Driver, "prove", prove)
    with pytest.raises(MismatchError, match="step 3: temperature"):
        driver(MismatchError("differ"))._learn(BATCH)


def test_a_mismatch_that_the_proof_does_not_find_stops_all_the_same(monkeypatch):
    monkeypatch.setattr(Driver, "prove", lambda self, step: None)
    with pytest.raises(MismatchError, match="differ"):
        driver(MismatchError("differ"))._learn(BATCH)


@pytest.mark.parametrize(("error", "staleness"), [(NumericsError("KL"), 0), (MismatchError("differ"), 1)])
def test_nothing_is_proved_where_engines_are_rightly_behind_or_something_else_is_wrong(monkeypatch, error, staleness):
    monkeypatch.setattr(Driver, "prove", lambda self, step: pytest.fail("proved"))
    with pytest.raises(type(error), match=str(error)):
        driver(error, staleness)._learn(BATCH)
