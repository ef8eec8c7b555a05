"""Sums over responses that lie one behind the other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mixed_r1_ray.algo.responses import spread_over_tokens, sum_by_response


@given(st.lists(st.lists(st.floats(-5, 5), min_size=1, max_size=9), min_size=1, max_size=6))
def test_each_token_is_summed_into_its_own_response(responses):
    lengths = torch.tensor([len(response) for response in responses])
    flat = torch.tensor([value for response in responses for value in response], dtype=torch.float64)
    sums = sum_by_response(flat, lengths)
    assert sums.tolist() == pytest.approx([sum(response) for response in responses], abs=1e-9)
    expected = [total for total, response in zip(sums.tolist(), responses, strict=True) for _ in response]
    assert spread_over_tokens(sums, lengths).tolist() == expected


def test_gradient_of_a_sum_reaches_its_own_tokens_only():
    values = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    (sum_by_response(values, torch.tensor([2, 3])) * torch.tensor([1.0, 10.0])).sum().backward()
    assert values.grad.tolist() == [1.0, 1.0, 10.0, 10.0, 10.0]
