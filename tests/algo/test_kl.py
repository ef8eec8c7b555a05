"""Estimators of the KL divergence: values, and which divergence their gradients belong to."""

from __future__ import annotations

import math
from typing import get_args, get_type_hints

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mixed_r1_ray.algo.kl import ESTIMATORS, importance_weighted, k1, k2, k3
from mixed_r1_ray.config import AlgoConfig

logprob = st.floats(-15, 0)


def test_golden_values():
    values = k3(torch.tensor([-1.0, -2.0, -0.5]), torch.tensor([-1.2, -1.5, -0.5]))
    assert values.tolist() == pytest.approx([0.018731, 0.148721, 0.0], abs=1e-6)


@given(logprob, logprob)
def test_equals_the_float64_formula_and_is_never_negative(policy, reference):
    value = k3(torch.tensor(policy, dtype=torch.float64), torch.tensor(reference, dtype=torch.float64)).item()
    difference = reference - policy
    assert value == pytest.approx(math.exp(difference) - difference - 1, rel=1e-9, abs=1e-12)
    assert value >= 0


def test_keeps_small_divergences_that_a_float32_exponential_would_lose():
    difference = 1e-4
    value = k3(torch.tensor(-difference), torch.tensor(0.0)).item()
    assert value == pytest.approx(difference**2 / 2, rel=1e-2)
    naive = torch.exp(torch.tensor(difference)) - 1 - torch.tensor(difference)
    assert abs(naive.item() - difference**2 / 2) > difference**2  # what the expm1 is for


def test_is_unbiased_for_the_divergence_of_two_distributions():
    policy = torch.log_softmax(torch.tensor([0.3, -1.0, 2.0, 0.1], dtype=torch.float64), 0)
    reference = torch.log_softmax(torch.tensor([1.3, 0.2, 1.0, -0.7], dtype=torch.float64), 0)
    exact = (policy.exp() * (policy - reference)).sum()
    assert (policy.exp() * k3(policy, reference)).sum().item() == pytest.approx(exact.item(), abs=1e-12)


def test_gradient_is_one_minus_the_ratio():
    policy = torch.tensor([-1.0, -2.0, -0.5], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([-1.2, -1.5, -0.5], dtype=torch.float64)
    k3(policy, reference).sum().backward()
    assert policy.grad.tolist() == pytest.approx([1 - math.exp(-0.2), 1 - math.exp(0.5), 0.0])


def test_far_apart_log_probabilities_stay_finite():
    values = k3(torch.tensor([-1e4, 0.0]), torch.tensor([0.0, -1e4]))
    assert torch.isfinite(values).all()
    assert values[0].item() == pytest.approx(math.expm1(20) - 20, rel=1e-6)


@given(logprob, logprob)
def test_k1_and_k2_equal_their_formulas(policy, reference):
    values = torch.tensor(policy, dtype=torch.float64), torch.tensor(reference, dtype=torch.float64)
    assert k1(*values).item() == pytest.approx(policy - reference, abs=1e-12)
    assert k2(*values).item() == pytest.approx((policy - reference) ** 2 / 2, abs=1e-12)


def test_every_configurable_estimator_exists():
    assert set(ESTIMATORS) == set(get_args(get_type_hints(AlgoConfig)["kl_estimator"]))


LOGITS = torch.tensor([0.3, -1.0, 2.0, 0.1], dtype=torch.float64)
REFERENCE = torch.log_softmax(torch.tensor([1.3, 0.2, 1.0, -0.7], dtype=torch.float64), 0)


def expected_gradient(estimator, weighted: bool) -> torch.Tensor:
    """Of the estimate with respect to the policy's logits, in expectation over tokens of that policy."""
    logits = LOGITS.clone().requires_grad_()
    policy = torch.log_softmax(logits, 0)
    estimate = estimator(policy, REFERENCE)
    if weighted:
        estimate = importance_weighted(estimate, policy, policy.detach())
    (policy.detach().exp() * estimate).sum().backward()  # sampling is not differentiated
    return logits.grad


def gradient_of(divergence) -> torch.Tensor:
    logits = LOGITS.clone().requires_grad_()
    divergence(torch.log_softmax(logits, 0)).backward()
    return logits.grad


REVERSE = gradient_of(lambda policy: (policy.exp() * (policy - REFERENCE)).sum())
FORWARD = gradient_of(lambda policy: (REFERENCE.exp() * (REFERENCE - policy)).sum())


@pytest.mark.parametrize(
    ("estimator", "weighted", "expected"),
    [
        (k1, False, torch.zeros(4, dtype=torch.float64)),
        (k2, False, REVERSE),
        (k3, False, FORWARD),
        (k1, True, REVERSE),
        (k3, True, REVERSE),
    ],
)
def test_which_divergences_gradient_an_estimator_has(estimator, weighted, expected):
    assert expected_gradient(estimator, weighted).tolist() == pytest.approx(expected.tolist(), abs=1e-12)


def test_weighting_k2_biases_its_gradient():
    assert (expected_gradient(k2, weighted=True) - REVERSE).abs().max() > 0.05


def test_importance_weights_are_those_of_the_old_policy():
    kl, new, old = torch.tensor([2.0, 3.0]), torch.tensor([-1.0, -1.0]), torch.tensor([-1.5, -0.5])
    values = importance_weighted(kl, new, old)
    assert values.tolist() == pytest.approx([2 * math.exp(0.5), 3 * math.exp(-0.5)])
