"""Attention over packed groups against masked attention over the whole row."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from mixed_r1_ray.policy.group_attention import GroupAttention

HEADS, HEAD_SIZE = 4, 8
ROWS = st.lists(
    st.tuples(st.integers(1, 6), st.lists(st.integers(1, 9), min_size=1, max_size=5)), min_size=1, max_size=4
)


def written_out_mask(rows, width: int) -> torch.Tensor:
    """Who attends to whom, token by token, and padding to itself."""
    mask = torch.eye(width, dtype=torch.bool).repeat(len(rows), 1, 1)
    for row, (prompt, responses) in enumerate(rows):
        for query in range(prompt):
            mask[row, query, : query + 1] = True
        first = prompt
        for length in responses:
            for query in range(first, first + length):
                mask[row, query, :prompt] = True
                mask[row, query, first : query + 1] = True
            first += length
    return mask.unsqueeze(1)


def both(rows, key_heads: int, padding: int = 0):
    """Outputs (B, L, H, D) and input gradients of the two, where tokens are real."""
    widths = [prompt + sum(responses) for prompt, responses in rows]
    width = max(widths) + padding
    real = torch.arange(width) < torch.tensor(widths).unsqueeze(1)
    torch.manual_seed(0)
    shapes = [(len(rows), heads, width, HEAD_SIZE) for heads in (HEADS, key_heads, key_heads)]
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    plan = GroupAttention.plan([prompt for prompt, _ in rows], [responses for _, responses in rows], width)
    masked = scaled_dot_product_attention(
        *inputs, attn_mask=written_out_mask(rows, width), scale=0.3, enable_gqa=key_heads != HEADS
    ).transpose(1, 2)
    results = []
    for output in (plan(*inputs, scale=0.3), masked):
        weights = torch.linspace(-1, 1, output[real].numel(), dtype=torch.float64).view_as(output[real])
        results.append((output[real], *torch.autograd.grad((output[real] * weights).sum(), inputs)))
    return results


@pytest.mark.parametrize("key_heads", [HEADS, 2])
@settings(deadline=None, max_examples=40)
@given(rows=ROWS)
def test_outputs_and_gradients_are_those_of_masked_attention(key_heads, rows):
    for ours, expected in zip(*both(rows, key_heads), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


def test_padding_behind_all_rows_changes_nothing():
    rows = [(3, [2, 9, 1]), (1, [4])]
    alone, _ = both(rows, HEADS)
    padded, expected = both(rows, HEADS, padding=5)
    assert padded[0].shape == alone[0].shape
    for ours, masked in zip(padded, expected, strict=True):
        torch.testing.assert_close(ours, masked, rtol=0, atol=1e-12)


def test_each_response_is_computed_once_beside_ones_at_least_half_as_long():
    plan = GroupAttention.plan([2, 3], [[8, 3, 4], [7, 1]], width=17)
    tokens = torch.cat([bucket.tokens[bucket.real] for bucket in plan.buckets])
    assert sorted(tokens.tolist()) == [*range(2, 17), *range(20, 28)]
    assert [bucket.real.sum(1).tolist() for bucket in plan.buckets] == [[8, 7, 4], [3], [1]]
