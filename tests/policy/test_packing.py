"""Layout of packed groups: who sees whom, which positions, which state predicts which token."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mixed_r1_ray.policy.packing import PackedGroups, pack
from mixed_r1_ray.types import PromptInputs


class OneAxisAdapter:
    """Positions as of a text model."""

    def prompt_positions(self, model, input_ids, pixels):
        return torch.arange(len(input_ids)).unsqueeze(0), len(input_ids)


class ThreeAxisAdapter:
    """Positions that, as with M-RoPE, grow more slowly than the tokens and differ by axis."""

    def prompt_positions(self, model, input_ids, pixels):
        half = torch.arange(len(input_ids)) // 2
        return torch.stack([half, half * 0, half * 0 + 1]), int(half.max()) + 1


def prompt(*token_ids: int, **pixels: np.ndarray) -> PromptInputs:
    return PromptInputs(np.array(token_ids, dtype=np.int64), pixels)


def response(*token_ids: int) -> np.ndarray:
    return np.array(token_ids, dtype=np.int32)


def test_two_groups_are_laid_out_as_the_docstring_draws_them():
    packed = pack(
        [prompt(7, 8, 9), prompt(5)],
        [[response(11, 12), response(21)], [response(31)]],
        OneAxisAdapter(),
        None,
    )
    assert packed.input_ids.tolist() == [[7, 8, 9, 5, 11, 12, 21, 31]]
    assert packed.position_ids.tolist() == [[[0, 1, 2, 0, 3, 4, 3, 1]]]
    assert packed.source_index.tolist() == [2, 4, 2, 3]  # first tokens are predicted by their prompt's last state
    assert packed.target_ids.tolist() == [11, 12, 21, 31]
    assert packed.response_lengths.tolist() == [2, 1, 1]
    assert packed.pixels == {}


def attends(packed: PackedGroups) -> torch.Tensor:
    """Who sees whom, bool (L, L), as the attention does it: alike scores, and values that name their token."""
    names = torch.eye(packed.input_ids.shape[1]).expand(1, 1, -1, -1)
    return packed.attention(torch.zeros_like(names), torch.zeros_like(names), names)[0, :, 0] > 0


def test_attention_of_two_small_groups_is_the_one_written_by_hand():
    packed = pack([prompt(7, 8), prompt(1)], [[response(11, 12), response(21)], [response(2)]], OneAxisAdapter(), None)
    assert attends(packed).int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0, 0],
        [1, 1, 0, 1, 0, 0, 0],
        [1, 1, 0, 1, 1, 0, 0],
        [1, 1, 0, 0, 0, 1, 0],
        [0, 0, 1, 0, 0, 0, 1],
    ]


@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.lists(st.integers(1, 5), min_size=1, max_size=4)),
        min_size=1,
        max_size=3,
    )
)
def test_each_token_sees_exactly_what_it_would_see_alone(rows):
    prompts = [prompt(*range(100 * b, 100 * b + length)) for b, (length, _) in enumerate(rows)]
    responses = [
        [
            response(*range(1000 * b + 100 * i + 50, 1000 * b + 100 * i + 50 + length))
            for i, length in enumerate(lengths)
        ]
        for b, (_, lengths) in enumerate(rows)
    ]
    packed = pack(prompts, responses, OneAxisAdapter(), None)
    flat_ids, mask = packed.input_ids[0], attends(packed)
    token = iter(zip(packed.source_index.tolist(), packed.target_ids.tolist(), strict=True))
    for b, row in enumerate(responses):
        for response_ids in row:
            alone = [*prompts[b].input_ids.tolist(), *response_ids.tolist()]
            for t in range(len(response_ids)):
                source, target = next(token)
                seen = mask[source].nonzero().flatten()
                length = len(prompts[b].input_ids) + t
                assert flat_ids[seen].tolist() == alone[:length]
                assert packed.position_ids[0, 0, seen].tolist() == list(range(length))
                assert target == alone[length]
    assert next(token, None) is None


def test_response_positions_count_on_alike_on_every_axis_for_each_response():
    packed = pack([prompt(1, 2, 3, 4)], [[response(5, 6), response(7)]], ThreeAxisAdapter(), None)
    assert packed.position_ids[:, 0].tolist() == [
        [0, 0, 1, 1, 2, 3, 2],
        [0, 0, 0, 0, 2, 3, 2],
        [1, 1, 1, 1, 2, 3, 2],
    ]


def test_pixels_of_all_prompts_are_joined_in_order_around_text_only_ones():
    first, second = np.full((2, 3), 1.0, np.float32), np.full((5, 3), 2.0, np.float32)
    packed = pack(
        [prompt(1, pixel_values=first), prompt(2), prompt(3, pixel_values=second)],
        [[response(4)]] * 3,
        OneAxisAdapter(),
        None,
    )
    assert packed.pixels["pixel_values"].tolist() == [*first.tolist(), *second.tolist()]


def test_arrays_from_the_object_store_are_read_only_and_stay_as_they_were():
    inputs, answer = prompt(1, 2, pixel_values=np.ones((1, 2), np.float32)), response(3)
    for array in (inputs.input_ids, inputs.pixels["pixel_values"], answer):
        array.setflags(write=False)
    packed = pack([inputs], [[answer]], OneAxisAdapter(), None)
    packed.input_ids.zero_(), packed.pixels["pixel_values"].zero_(), packed.target_ids.zero_()
    assert (inputs.input_ids.tolist(), answer.tolist()) == ([1, 2], [3])
    assert inputs.pixels["pixel_values"].sum() == 2


def test_prompts_and_responses_must_pair_up():
    with pytest.raises(ValueError):
        pack([prompt(1), prompt(2)], [[response(3)]], OneAxisAdapter(), None)
