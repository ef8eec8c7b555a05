"""The numerics guard: what passes, what stops the run, and what the message names."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mixed_r1_ray.config import Config
from mixed_r1_ray.guard import Guard, NumericsError
from mixed_r1_ray.types import Group, Rollout

GUARD = Guard(max_logprob_mismatch=1e-4, max_initial_kl=1e-6)


@pytest.mark.parametrize(
    ("dtype", "mismatch", "kl", "mean"), [("float32", 1e-4, 1e-6, 1e-5), ("bfloat16", 1.0, 1e-2, 0.05)]
)
def test_thresholds_follow_the_number_format_unless_they_are_set(dtype, mismatch, kl, mean):
    config = Config()
    config.model.dtype = dtype
    assert Guard.from_config(config) == Guard(mismatch, kl, 0, mean)
    config.guard.max_logprob_mismatch, config.guard.max_initial_kl, config.guard.max_mean_mismatch = 0.5, 0.25, 0.125
    assert Guard.from_config(config) == Guard(0.5, 0.25, 0, 0.125)


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


@pytest.mark.parametrize(
    ("differences", "allowed"),
    [([0.0, 1e-6], True), ([9e-5] + 19 * [0.0], True), ([9e-5, 9e-5], False), ([1.1e-4] + 99 * [0.0], False), ([math.nan], False)],
)
def test_a_proof_holds_within_the_limits_of_the_largest_and_the_mean(differences, allowed):
    assert GUARD.allows(np.array(differences)) is allowed


def test_a_proof_that_fails_says_both_their_keys_the_prompt_and_the_cause():
    said = str(GUARD.proof_failed(3, np.array([0.25, 0.75]), "p7", "stale weights"))
    assert "step 3" in said and "up to 0.75 (allowed 0.0001, guard.max_logprob_mismatch)" in said
    assert "on average by 0.5 (allowed 1e-05, guard.max_mean_mismatch), worst on prompt 'p7'" in said
    assert said.endswith("Cause: stale weights.")


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
