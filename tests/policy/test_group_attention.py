"""Attention over packed groups against attention with the mask written out, in plain matrix products."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mixed_r1_ray.policy.group_attention import GroupAttention
from mixed_r1_ray.policy.segments import Segments

HEADS, HEAD_SIZE, SCALE = 4, 8, 0.3
GROUPS = st.lists(
    st.tuples(st.integers(1, 6), st.lists(st.integers(1, 9), min_size=1, max_size=5)), min_size=1, max_size=4
)
UNEVEN = [(3, [2, 90, 1]), (70, [40, 4]), (1, [33])]


def written_out_mask(groups) -> torch.Tensor:
    """Who attends to whom, token by token, bool (L, L)."""
    prompts = sum(prompt for prompt, _ in groups)
    length = prompts + sum(sum(responses) for _, responses in groups)
    mask = torch.zeros(length, length, dtype=torch.bool)
    prompt_start, place = 0, prompts
    for prompt, responses in groups:
        for query in range(prompt):
            mask[prompt_start + query, prompt_start : prompt_start + query + 1] = True
        for response in responses:
            for query in range(place, place + response):
                mask[query, prompt_start : prompt_start + prompt] = True
                mask[query, place : query + 1] = True
            place += response
        prompt_start += prompt
    return mask


def masked_attention(query, key, value, mask):
    """(1, H, L, D) -> (1, L, H, D)"""
    key, value = (part.repeat_interleave(HEADS // part.shape[1], dim=1) for part in (key, value))
    scores = (query @ key.transpose(-1, -2) * SCALE).masked_fill(~mask, -torch.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2)


def planned(groups) -> GroupAttention:
    return GroupAttention.plan([prompt for prompt, _ in groups], [responses for _, responses in groups])


def compared(groups, key_heads: int, dtype: torch.dtype):
    """Output and input gradients: ours, then those of masked attention in float64."""
    mask = written_out_mask(groups)
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, heads, len(mask), HEAD_SIZE) for heads in (HEADS, key_heads, key_heads)]
    exact = [torch.randn(shape, dtype=torch.float64, generator=generator) * 3 for shape in shapes]
    exact = [part.to(dtype).double().requires_grad_() for part in exact]
    inputs = [part.detach().to(dtype).requires_grad_() for part in exact]
    weights = torch.linspace(-1, 1, len(mask) * HEADS * HEAD_SIZE).view(1, len(mask), HEADS, HEAD_SIZE).to(dtype)
    results = []
    for attention, tensors in ((planned(groups), inputs), (masked_attention, exact)):
        options = {"scale": SCALE} if attention is not masked_attention else {"mask": mask}
        output = attention(*tensors, **options)
        gradients = torch.autograd.grad((output * weights.to(output.dtype)).sum(), tensors)
        results.append([part.double() for part in (output, *gradients)])
    return zip(*results, strict=True)


@pytest.mark.parametrize("key_heads", [HEADS, 2])
@settings(deadline=None, max_examples=40)
@given(groups=GROUPS)
def test_outputs_and_gradients_are_those_of_masked_attention(key_heads, groups):
    for ours, expected in compared(groups, key_heads, torch.float64):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_lengths_far_apart_and_large_scores_stay_exact(dtype, tolerance):
    for ours, expected in compared(UNEVEN, 2, dtype):
        torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance * expected.abs().max().item())


def test_padding_does_not_overflow_where_scores_are_far_above_those_of_the_token_it_repeats():
    """exp of hundreds is infinite, and infinity times the gradient 0 of padding is not a number."""
    length, generator = len(written_out_mask(UNEVEN)), torch.Generator().manual_seed(0)
    shapes = [(1, heads, length, HEAD_SIZE) for heads in (HEADS, 2, 2)]
    inputs = [(torch.randn(shape, generator=generator) * 30).requires_grad_() for shape in shapes]
    gradients = torch.autograd.grad(planned(UNEVEN)(*inputs, scale=SCALE).sum(), inputs)
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_autograd_keeps_inputs_outputs_and_a_number_a_query_and_head():
    groups, kept = [(100, [200, 150, 120])], {}
    length = len(written_out_mask(groups))
    inputs = [torch.randn(1, heads, length, HEAD_SIZE, requires_grad=True) for heads in (HEADS, 2, 2)]

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        planned(groups)(*inputs)
    assert sum(kept.values()) == 4 * length * (2 * HEADS * HEAD_SIZE + 2 * 2 * HEAD_SIZE + HEADS)


def test_causal_segments_of_similar_length_are_computed_together_and_each_once():
    segments = Segments.within([8, 3, 4, 7, 1], causal=True)
    assert [bucket.queries.tokens.tolist() for bucket in segments.buckets] == [
        [*range(0, 8), *range(15, 22), *range(11, 15)],
        [8, 9, 10],
        [22],
    ]


def test_segments_that_see_everything_are_computed_with_those_of_as_many_keys():
    """Nothing would hide padded keys; padded queries hurt nobody."""
    segments = Segments.across([6, 4, 5], [3, 3, 2])
    found = [(b.queries.tokens.tolist(), b.keys.tokens.tolist(), tuple(b.keys.rows.shape)) for b in segments.buckets]
    assert found == [([*range(10)], [*range(6)], (2, 3)), ([*range(10, 15)], [6, 7], (1, 2))]
