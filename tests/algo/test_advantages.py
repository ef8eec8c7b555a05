"""Advantages against golden values and the plain formula in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixed_r1_ray.algo.advantages import (
    decoupled_advantages,
    group_advantages,
    has_zero_variance,
    leave_one_out_advantages,
    whitened_advantages,
)

rewards = st.floats(0, 1.5)
groups = st.lists(st.lists(st.none() | rewards, min_size=1, max_size=8), min_size=1, max_size=5)


def test_golden_values_of_group_scaling():
    first, second = group_advantages([[1, 0, 0, 1], [1, 0.5]])
    assert first == pytest.approx([0.866024, -0.866024, -0.866024, 0.866024], abs=1e-6)
    assert second == pytest.approx([0.707105, -0.707105], abs=1e-6)


def test_golden_values_without_scaling():
    assert group_advantages([[1, 0, 0, 1], [1, 0.5]], "none") == [
        pytest.approx([0.5, -0.5, -0.5, 0.5]),
        pytest.approx([0.25, -0.25]),
    ]


def test_batch_scaling_divides_every_group_by_the_standard_deviation_of_all_rewards():
    batch = [[1.0, 0.0, 0.0, 1.0], [0.9, 0.8], [0.3, None]]
    std = np.std([1.0, 0.0, 0.0, 1.0, 0.9, 0.8, 0.3], ddof=1)
    first, second, third = group_advantages(batch, "batch")
    assert first == pytest.approx(np.array([0.5, -0.5, -0.5, 0.5]) / (std + 1e-6))
    assert second == pytest.approx(np.array([0.05, -0.05]) / (std + 1e-6))
    assert third == (0.0, None)


def test_unscored_sample_stays_none_and_changes_nobody_elses_advantage():
    (with_gap,) = group_advantages([[1.0, None, 0.0, 0.5]])
    (without,) = group_advantages([[1.0, 0.0, 0.5]])
    assert with_gap[1] is None
    assert (with_gap[0], *with_gap[2:]) == without


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_group_with_nothing_to_compare_has_advantage_zero_or_none(scale):
    assert group_advantages([[0.7], [None, 0.7], [None, None]], scale) == [(0.0,), (None, 0.0), (None, None)]


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_equal_rewards_teach_nothing_even_where_their_mean_rounds(scale):
    (advantages,) = group_advantages([[0.1] * 7], scale)
    assert advantages == pytest.approx([0.0] * 7, abs=1e-9)


def test_floor_holds_back_a_hairs_breadth_of_spread():
    (loose,) = group_advantages([[0.80, 0.81]])
    (held,) = group_advantages([[0.80, 0.81]], std_floor=0.1)
    assert loose[1] == pytest.approx(0.7070, abs=1e-3)
    assert held[1] == pytest.approx(0.005 / (0.1 + 1e-6))


def test_floor_leaves_wide_groups_and_unscaled_advantages_alone():
    assert group_advantages([[1, 0]], std_floor=0.1) == group_advantages([[1, 0]])
    assert group_advantages([[1, 0]], "none", std_floor=9.0) == [pytest.approx([0.5, -0.5])]


@given(groups)
def test_equals_the_formula_and_sums_to_zero_in_each_group(batch):
    for group, advantages in zip(batch, group_advantages(batch), strict=True):
        scored = np.array([reward for reward in group if reward is not None])
        std = scored.std(ddof=1) if len(scored) > 1 else 0.0
        expected = [None if reward is None else (reward - scored.mean()) / (std + 1e-6) for reward in group]
        live = [advantage for advantage in advantages if advantage is not None]
        assert [advantage is None for advantage in advantages] == [reward is None for reward in group]
        assert live == pytest.approx([value for value in expected if value is not None], abs=1e-6)
        assert math.fsum(live) == pytest.approx(0.0, abs=1e-6)


def test_decoupled_advantages_keep_what_a_sum_would_drown():
    # Three levels of (task, format): in their plain sum, 0.1 of task is nothing beside 1.0 of format.
    task, form = [[0.8, 0.9, 0.8, 0.9]], [[1.0, 1.0, 0.0, 0.0]]
    (summed,) = group_advantages([[a + b for a, b in zip(task[0], form[0])]])
    (apart,) = decoupled_advantages([(1.0, task), (1.0, form)])
    assert (summed[1] - summed[0]) / (summed[0] - summed[2]) == pytest.approx(0.1)
    assert (apart[1] - apart[0]) / (apart[0] - apart[2]) == pytest.approx(1.0, abs=1e-4)


@given(st.lists(st.tuples(*[st.tuples(rewards, rewards)] * 4), min_size=1, max_size=4))
def test_decoupled_advantages_equal_gdpos_formula(batch):
    kinds = np.array(batch).transpose(2, 0, 1)  # (kind, group, sample)
    centred = kinds - kinds.mean(axis=2, keepdims=True)
    normalised = centred / (kinds.std(axis=2, ddof=1, keepdims=True) + 1e-6)
    sums = 1.0 * normalised[0] + 0.5 * normalised[1]
    expected = (sums - sums.mean()) / (sums.std(ddof=1) + 1e-6)
    advantages = decoupled_advantages([(1.0, kinds[0].tolist()), (0.5, kinds[1].tolist())])
    assert np.array(advantages) == pytest.approx(expected, abs=1e-4)


def test_decoupled_sample_that_misses_one_kind_is_left_out():
    ((first, second, third),) = decoupled_advantages([(1.0, [[1.0, 0.5, 0.0]]), (1.0, [[1.0, None, 1.0]])])
    assert second is None and first == -third > 0


def test_decoupled_floor_holds_back_a_hairs_breadth_of_one_kind():
    task, form = [[0.80, 0.81, 0.80, 0.81]], [[1.0, 1.0, 0.0, 0.0]]
    (held,) = decoupled_advantages([(1.0, task), (1.0, form)], std_floor=0.1)
    assert (held[1] - held[0]) / (held[0] - held[2]) == pytest.approx(0.1 * 0.57735, rel=1e-3)


def test_unknown_scale_is_refused_with_the_valid_ones():
    with pytest.raises(ValueError, match="'gruop'.*group, batch, none"):
        group_advantages([[1, 0]], "gruop")


@pytest.mark.parametrize(
    ("group", "flat"),
    [
        ([1, 1], True),
        ([None, 0.5], True),
        ([None], True),
        ([0.5, None, 0.5 + 1e-15], True),
        ([1, None, 0], False),
    ],
)
def test_zero_variance_looks_at_scored_samples_only(group, flat):
    assert has_zero_variance(group) is flat


@given(groups)
def test_leave_one_out_compares_with_the_mean_of_the_others(batch):
    for group, advantages in zip(batch, leave_one_out_advantages(batch), strict=True):
        for index, reward in enumerate(group):
            others = [other for number, other in enumerate(group) if number != index and other is not None]
            if reward is None:
                assert advantages[index] is None
            else:
                expected = reward - np.mean(others) if others else 0.0
                assert advantages[index] == pytest.approx(expected, abs=1e-9)


def test_leave_one_out_of_a_right_answer_among_wrong_ones():
    assert leave_one_out_advantages([[1.0, 0.0, 0.0, 0.0]]) == [pytest.approx((1.0, -1 / 3, -1 / 3, -1 / 3))]


samples = st.tuples(st.none() | rewards, st.integers(1, 9))  # reward, length
sized = st.lists(st.lists(samples, min_size=1, max_size=6), min_size=1, max_size=5)


@given(sized)
def test_whitened_advantages_equal_the_formula_over_tokens(batch):
    scores = [[reward for reward, _ in group] for group in batch]
    lengths = [[length for _, length in group] for group in batch]
    centred = []
    for group, sizes in zip(scores, lengths, strict=True):
        scored = [reward for reward in group if reward is not None]
        pairs = zip(group, sizes, strict=True)
        centred += [(reward - np.mean(scored), size) for reward, size in pairs if reward is not None]
    tokens = np.concatenate([np.full(size, value) for value, size in centred]) if centred else np.zeros(0)
    variance = tokens.var(ddof=1) if len(tokens) > 1 else 0.0
    advantages = whitened_advantages(scores, lengths)
    live = [value for group in advantages for value in group if value is not None]
    expected = [(value - tokens.mean()) / math.sqrt(variance + 1e-8) for value, _ in centred]
    assert live == pytest.approx(expected, rel=1e-6, abs=1e-6)
    missing = [[value is None for value in group] for group in advantages]
    assert missing == [[reward is None for reward in group] for group in scores]


def test_whitened_advantages_have_mean_zero_and_variance_one_over_tokens():
    lengths = [[3, 50, 7], [20, 4]]
    first, second = whitened_advantages([[1.0, 0.0, 0.5], [0.2, 0.9]], lengths)
    tokens = np.repeat([*first, *second], [*lengths[0], *lengths[1]])
    assert tokens.mean() == pytest.approx(0.0, abs=1e-12)
    assert tokens.std(ddof=1) == pytest.approx(1.0, abs=1e-6)


def test_whitening_floor_holds_back_a_batch_in_which_hardly_anything_differs():
    ((low, high),) = whitened_advantages([[0.80, 0.81]], [[4, 4]], std_floor=0.1)
    assert (low, high) == pytest.approx((-0.05, 0.05))
