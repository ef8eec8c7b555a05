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


def test_updates_that_were_skipped_are_a_warning_of_their_step(monkeypatch):
    warnings = []
    learned = {"updates": 4, "updates/skipped": 2}
    monkeypatch.setattr("mixed_r1_ray.driver.make_batch", lambda *_: BATCH)
    monkeypatch.setattr("mixed_r1_ray.driver.staleness_metrics", lambda *_: {})
    monkeypatch.setattr("mixed_r1_ray.driver.overlong_metrics", lambda *_: {})
    parts = SimpleNamespace(
        learners=SimpleNamespace(update=lambda batch, meanwhile: learned),
        sampler=SimpleNamespace(
            pipeline=SimpleNamespace(advance=None),
            sample=lambda step, clock: SimpleNamespace(batch=[], generated=[], metrics={}),
        ),
        transfer=SimpleNamespace(hand_over=lambda step: None),
        turns=SimpleNamespace(metrics=dict),
        train_data=SimpleNamespace(bad_rows=[]),
    )
    journal = SimpleNamespace(
        warn=warnings.append, wants_rollouts=lambda step: False, summarise=lambda groups, learned, *_: learned
    )
    assert Driver(Config(), parts, journal).train_step(3)["updates/skipped"] == 2
    (said,) = warnings
    assert said.startswith("step 3: 2 of 4 updates skipped") and "learner.max_skipped_updates" in said
