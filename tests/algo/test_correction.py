"""Rollout correction against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mixed_r1_ray.algo.correction import rollout_correction

responses = st.lists(st.lists(st.floats(-2, 2), min_size=1, max_size=6), min_size=1, max_size=4)


def correct(batch: list[list[float]], level: str, mode: str, *band: float | None):
    """`batch`: log(trainer / engine) of each token of each response."""
    log_ratios = torch.tensor([value for response in batch for value in response], dtype=torch.float64)
    engine = torch.full_like(log_ratios, -1.0)
    lengths = torch.tensor([len(response) for response in batch])
    return rollout_correction(engine + log_ratios, engine, lengths, level, mode, *band)


def ratios(batch: list[list[float]], level: str) -> list[float]:
    if level == "token":
        return [math.exp(value) for response in batch for value in response]
    return [math.exp(math.fsum(response)) for response in batch for _ in response]


@pytest.mark.parametrize("level", ["token", "sequence"])
@given(responses)
def test_truncation_lowers_what_is_above_and_leaves_the_rest(level, batch):
    correction = correct(batch, level, "truncate", 2.0)
    expected = [min(ratio, 2.0) for ratio in ratios(batch, level)]
    assert correction.weights.tolist() == pytest.approx(expected, rel=1e-9)
    for ratio, bounded in zip(ratios(batch, level), correction.bounded.tolist(), strict=True):
        assert bounded is (ratio > 2.0) or ratio == pytest.approx(2.0)


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("band", [(2.0, None), (3.0, 0.25)])
@given(responses)
def test_masking_drops_what_lies_outside_the_band_and_keeps_the_rest_as_it_is(level, band, batch):
    most, least = band[0], band[1] or 1 / band[0]
    correction = correct(batch, level, "mask", *band)
    rows = zip(ratios(batch, level), correction.weights.tolist(), correction.bounded.tolist(), strict=True)
    for ratio, weight, bounded in rows:
        if ratio == pytest.approx(most) or ratio == pytest.approx(least):
            continue  # on the edge, either way
        assert bounded is not (least <= ratio <= most)
        assert weight == pytest.approx(0.0 if bounded else ratio, rel=1e-9)


def test_sequence_weight_is_the_product_of_its_own_tokens():
    correction = correct([[0.1, 0.2], [-0.3, 0.0, -0.1]], "sequence", "truncate", 2.0)
    assert correction.weights.tolist() == pytest.approx([math.exp(0.3)] * 2 + [math.exp(-0.4)] * 3)


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("mode", ["truncate", "mask"])
def test_engine_and_trainer_that_agree_are_not_corrected(level, mode):
    correction = correct([[0.0, 0.0], [0.0]], level, mode, 2.0)
    assert correction.weights.tolist() == [1.0] * 3 and not correction.bounded.any()


def test_truncated_weights_stay_finite_and_carry_no_gradient():
    trainer = torch.tensor([0.0, -1e4], requires_grad=True)
    correction = rollout_correction(
        trainer, torch.tensor([-1e4, 0.0]), torch.tensor([1, 1]), "token", "truncate", 2.0
    )
    assert correction.weights[0] == 2.0 and torch.isfinite(correction.weights).all()
    assert not correction.weights.requires_grad


def test_weighted_mean_is_the_trainers_expectation():
    # Two tokens' distributions: what the engine's samples weigh in the mean is what the trainer's would.
    engine, trainer = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.4, 0.35, 0.25]).double()
    lengths = torch.ones(3, dtype=torch.long)
    weights = rollout_correction(trainer.log(), engine.log(), lengths, "token", "truncate", 2.0).weights
    value = torch.tensor([1.0, -2.0, 5.0]).double()
    assert (engine * weights * value).sum().item() == pytest.approx((trainer * value).sum().item())
