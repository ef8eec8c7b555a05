"""The numerics guard: what passes, what stops the run, and what the message names."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mixed_r1_ray.config import Config
from mixed_r1_ray.guard import Guard, NumericsError
from mixed_r1_ray.types import Group, Rollout

GUARD = Guard(max_logprob_mismatch=1e-4, max_initial_kl=1e-6)


@pytest.mark.parametrize(("dtype", "mismatch", "kl"), [("float32", 1e-4, 1e-6), ("bfloat16", 1.0, 1e-2)])
def test_thresholds_follow_the_number_format_unless_they_are_set(dtype, mismatch, kl):
    config = Config()
    config.model.dtype = dtype
    assert Guard.from_config(config) == Guard(mismatch, kl)
    config.guard.max_logprob_mismatch, config.guard.max_initial_kl = 0.5, 0.25
    assert Guard.from_config(config) == Guard(0.5, 0.25)


@pytest.mark.parametrize("mismatch", [0.0, 1e-6, 1e-4])
def test_small_mismatch_passes(mismatch):
    GUARD.check_mismatch(3, mismatch, "p7")


@pytest.mark.parametrize("mismatch", [1.1e-4, 0.7, math.inf, math.nan])
def test_mismatch_stops_and_names_step_prompt_size_and_key(mismatch):
    with pytest.raises(NumericsError, match=r"step 3: .*prompt 'p7'.*guard\.max_logprob_mismatch") as caught:
        GUARD.check_mismatch(3, mismatch, "p7")
    assert f"{mismatch:.3g}" in str(caught.value)


def test_a_version_that_was_not_due_stops_and_names_the_prompt():
    GUARD.check_version(5, "p7", version=3, scheduled=3)
    for version in (2, 4):
        with pytest.raises(NumericsError, match=rf"step 5: prompt 'p7' .*version {version}, but version 3 was due"):
            GUARD.check_version(5, "p7", version, scheduled=3)


def test_nothing_older_than_allowed_is_learned_from():
    config = Config()
    config.algo.max_staleness = 2
    guard = Guard.from_config(config)
    guard.check_staleness(5, "p7", oldest_version=2)
    GUARD.check_staleness(5, "p7", oldest_version=4)
    with pytest.raises(NumericsError, match=r"step 5: .*'p7' .*version 1, 3 behind the policy's 4 .*max_staleness 2"):
        guard.check_staleness(5, "p7", oldest_version=1)
    with pytest.raises(NumericsError, match="1 behind"):
        GUARD.check_staleness(5, "p7", oldest_version=3)


@pytest.mark.parametrize("kl", [0.0, 1e-7, -1e-7])
def test_zero_kl_passes(kl):
    GUARD.check_initial_kl(kl)


@pytest.mark.parametrize("kl", [1e-3, -1e-3, math.nan])
def test_kl_before_any_update_stops(kl):
    with pytest.raises(NumericsError, match=r"before any update.*guard\.max_initial_kl"):
        GUARD.check_initial_kl(kl)


def test_the_message_ends_with_the_cause_where_one_was_found():
    with pytest.raises(NumericsError, match=r"Cause: stale weights\.$"):
        GUARD.check_mismatch(3, 0.7, "p7", "stale weights")


def group(*responses: list[int]) -> Group:
    rollouts = tuple(
        Rollout(number, np.array(tokens, np.int32), np.zeros(len(tokens), np.float32), np.zeros(0, np.int32), "", True)
        for number, tokens in enumerate(responses)
    )
    return Group("p7", np.zeros(3, np.int32), rollouts)


def test_a_media_token_in_a_response_stops_and_is_named():
    GUARD.check_media_tokens(group([5, 6], [7]), (3, 4))
    with pytest.raises(NumericsError, match=r"'p7': sample 1 holds media token 4\..* does not ban media tokens"):
        GUARD.check_media_tokens(group([5, 6], [7, 4, 3]), (3, 4))


def test_equal_prompt_tokens_pass_whatever_their_integer_type():
    GUARD.check_prompt_ids("p7", np.array([1, 2], np.int32), np.array([1, 2], np.int64))


@pytest.mark.parametrize(
    ("engine", "trainer", "first"),
    [([1, 2, 3], [1, 9, 3], 1), ([1, 2], [1, 2, 3], 2), ([], [1], 0), ([4, 5], [4], 1)],
)
def test_differing_prompt_tokens_name_prompt_first_difference_and_lengths(engine, trainer, first):
    with pytest.raises(
        NumericsError, match=rf"'p7'.*from token {first} on \({len(engine)} and {len(trainer)} tokens\)"
    ):
        GUARD.check_prompt_ids("p7", np.array(engine, np.int32), np.array(trainer, np.int64))
