"""The numerics guard: what passes, what stops the run, and what the message names."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mixed_r1_ray.config import Config
from mixed_r1_ray.guard import Guard, NumericsError, TokenDifference, TokenDifferences
from mixed_r1_ray.types import Group, Rollout

GUARD = Guard(max_logprob_mismatch=1e-4, max_initial_kl=1e-6)


@pytest.mark.parametrize(
    ("dtype", "mismatch", "kl", "mean", "likely"),
    [("float32", 1e-4, 1e-6, 1e-5, 0.25), ("bfloat16", 1.0, 1e-2, 0.05, math.inf)],
)
def test_thresholds_follow_the_number_format_unless_they_are_set(dtype, mismatch, kl, mean, likely):
    config = Config()
    config.model.dtype = dtype
    assert Guard.from_config(config) == Guard(mismatch, kl, 0, mean, likely)
    config.guard.max_logprob_mismatch, config.guard.max_initial_kl, config.guard.max_mean_mismatch = 0.5, 0.25, 0.125
    assert Guard.from_config(config) == Guard(0.5, 0.25, 0, 0.125, likely)


@pytest.mark.parametrize("mismatch", [0.0, 1e-6, 1e-4])
def test_small_mismatch_passes(mismatch):
    GUARD.check_mismatch(3, TokenDifference(mismatch, prompt_id="p7"))


@pytest.mark.parametrize("mismatch", [1.1e-4, 0.7, math.inf, math.nan])
def test_mismatch_stops_and_names_step_prompt_size_and_key(mismatch):
    with pytest.raises(NumericsError, match=r"step 3: .*prompt 'p7'.*guard\.max_logprob_mismatch") as caught:
        GUARD.check_mismatch(3, TokenDifference(mismatch, prompt_id="p7"))
    assert f"{mismatch:.3g}" in str(caught.value)


def apart(sizes: list[float], logprob: float = -0.1) -> TokenDifferences:
    """Tokens that both give about this log-probability; the engine's are lower by `sizes`."""
    trainer = np.full(len(sizes), logprob)
    return TokenDifferences.of(trainer - np.array(sizes), trainer)


@pytest.mark.parametrize(
    ("engine", "trainer", "size", "scale"),
    [
        (-0.125, -0.25, 0.125, 1.0),
        (-0.25, -0.25, 0.0, 1.0),
        (-0.5, -0.5, 0.0, 2.0),
        (-3.0, -3.5, 0.5, 12.0),
        (-3.5, -3.0, 0.5, 12.0),
        (-0.1, -40.0, 39.9, 1.0),  # a likely token that a fault made unlikely
        (-40.0, -0.1, 39.9, 1.0),
        (math.nan, -3.0, math.inf, 1.0),
        (-3.0, math.nan, math.inf, 1.0),
        (-math.inf, -3.0, math.inf, 12.0),
        (-math.inf, -math.inf, math.inf, 1.0),
    ],
)
def test_the_bound_grows_from_a_quarter_nat_on_with_the_log_probability_nearer_to_zero(engine, trainer, size, scale):
    found = TokenDifferences.of(np.array([engine]), np.array([trainer]))
    assert (found.sizes[0], found.scales[0]) == (pytest.approx(size), scale)
    assert found.scaled[0] == pytest.approx(size / scale)


def test_in_bfloat16_the_bound_is_one_for_all():
    config = Config()
    config.model.dtype = "bfloat16"
    unlikely = np.array([-9.0])
    assert TokenDifferences.of(unlikely, unlikely, Guard.from_config(config).likely).scales[0] == 1.0
    config.model.dtype = "float32"
    assert TokenDifferences.of(unlikely, unlikely, Guard.from_config(config).likely).scales[0] == 36.0


def test_an_unlikely_token_may_differ_by_more_and_the_message_says_by_how_much():
    GUARD.check_mismatch(3, TokenDifference(3.9e-4, scale=4.0, prompt_id="p7"))
    with pytest.raises(NumericsError) as caught:
        GUARD.check_mismatch(3, TokenDifference(4.1e-4, scale=4.0, prompt_id="p7"))
    said = "0.00041 on prompt 'p7' (allowed 0.0004, guard.max_logprob_mismatch times 4 for an unlikely token)"
    assert said in str(caught.value)


def test_rounding_of_logits_moves_a_log_probability_by_at_most_its_nats_times_what_it_moves_logits():
    """Why the bound may grow, and needs not for likely tokens: first order, by random logits in float64."""
    random = np.random.default_rng(0)
    for _ in range(200):
        logits = random.normal(0, 6, 50)
        errors = random.uniform(-1e-7, 1e-7, 50)
        before, after = (values - np.log(np.exp(values).sum()) for values in (logits, logits + errors))
        allowed = np.minimum(1.0, np.abs(before)) * np.ptp(errors)
        assert (np.abs(after - before) <= allowed + 1e-13).all()


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
    assert GUARD.allows(apart(differences)) is allowed


def test_a_proof_holds_each_token_against_its_own_bound_and_the_mean_as_it_is():
    many = 99 * [0.0]
    assert GUARD.allows(apart([3.9e-4, *many], logprob=-1.0))
    assert not GUARD.allows(apart([4.1e-4, *many], logprob=-1.0))
    assert not GUARD.allows(apart([3.9e-4, *many], logprob=-0.75))
    assert not GUARD.allows(apart(100 * [1.1e-5], logprob=-30.0))


def test_a_proof_that_fails_says_both_their_keys_the_prompt_and_the_cause():
    said = str(GUARD.proof_failed(3, apart([0.25, 0.75]), "p7", "stale weights"))
    assert "step 3" in said and "up to 0.75 on prompt 'p7' (allowed 0.0001, guard.max_logprob_mismatch)" in said
    assert "on average by 0.5 (allowed 1e-05, guard.max_mean_mismatch)" in said
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
