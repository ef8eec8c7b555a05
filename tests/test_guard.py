"""The numerics guard: what passes, what stops the run, and what the message names."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mixed_r1_ray.config import Config, ModelConfig
from mixed_r1_ray.guard import (
    Guard,
    MismatchError,
    NumericsError,
    Spread,
    TokenDifference,
    TokenDifferences,
    high_quantile,
    locate,
)
from mixed_r1_ray.types import Group, Rollout

GUARD = Guard(max_logprob_mismatch=1e-4, max_initial_kl=1e-6)


@pytest.mark.parametrize(
    ("dtype", "mismatch", "kl", "mean", "quantile", "likely"),
    [("float32", 1e-4, 1e-6, 1e-5, math.inf, 0.25), ("bfloat16", math.inf, 1e-2, 0.1, 1.0, math.inf)],
)
def test_thresholds_follow_the_number_format_unless_they_are_set(dtype, mismatch, kl, mean, quantile, likely):
    config = Config()
    config.model.dtype = dtype
    assert Guard.from_config(config) == Guard(mismatch, kl, 0, mean, quantile, likely)
    config.guard.max_logprob_mismatch, config.guard.max_initial_kl = 0.5, 0.25
    config.guard.max_mean_mismatch, config.guard.max_quantile_mismatch = 0.125, 0.75
    assert Guard.from_config(config) == Guard(0.5, 0.25, 0, 0.125, 0.75, likely)


def one_token(size: float, scale: float = 1.0) -> Spread:
    return Spread(size, size, TokenDifference(size, scale, "p7", sample=2, position=17))


@pytest.mark.parametrize("mismatch", [0.0, 1e-6, 1e-4])
def test_small_mismatch_passes(mismatch):
    GUARD.check_mismatch(3, one_token(mismatch))


@pytest.mark.parametrize("mismatch", [1.1e-4, 0.7, math.inf, math.nan])
def test_mismatch_stops_and_names_step_token_size_and_key(mismatch):
    with pytest.raises(MismatchError) as caught:
        GUARD.check_mismatch(3, one_token(mismatch))
    said = f"log-probabilities differ by {mismatch:.3g} on token 17 of sample 2 of prompt 'p7' "
    assert said + "(allowed 0.0001, guard.max_logprob_mismatch)" in str(caught.value)
    assert str(caught.value).startswith("step 3: ")


BFLOAT16 = Guard.from_config(Config(model=ModelConfig(dtype="bfloat16")))


def rounding(number: int, seed: int = 0) -> np.ndarray:
    """Sizes like those measured in bfloat16 (docs/algorithms.md): mean .04, 99.9 % .25; here with a heavier tail."""
    random = np.random.default_rng(seed)
    return 0.04 * random.standard_gamma(1.0, number) * np.where(random.random(number) < 1e-3, 4.0, 1.0)


def spread(sizes: np.ndarray) -> Spread:
    token = int(np.argmax(sizes))
    return Spread.of(sizes, TokenDifference(float(sizes[token]), 1.0, "p7", 2, token))


def test_in_bfloat16_single_tokens_of_a_healthy_step_do_not_stop_it():
    sizes = rounding(1_000_000)
    sizes[:500] = 1.5  # one token in two thousand
    BFLOAT16.check_mismatch(3, spread(sizes))


@pytest.mark.parametrize("number", [100, 1000, 10_000, 1_000_000])
@pytest.mark.parametrize(
    ("fault", "key"),
    [
        (lambda sizes, place: sizes + 0.08, "max_mean_mismatch"),  # all tokens a little: another temperature
        (lambda sizes, place: np.where(place % 8 == 0, 2.0, sizes), "max_mean_mismatch"),  # one engine of eight
        (lambda sizes, place: np.where(place < max(11, len(place) // 50), 1.1, sizes), "max_quantile_mismatch"),
        (lambda sizes, place: np.where(place == 5, np.inf, sizes), "max_mean_mismatch"),  # not a number
    ],
)
def test_in_bfloat16_faults_stop_a_step_and_the_key_and_the_token_are_named(number, fault, key):
    sizes = fault(rounding(number), np.arange(number))
    with pytest.raises(MismatchError) as caught:
        BFLOAT16.check_mismatch(3, spread(sizes))
    said = str(caught.value)
    limit = {"max_mean_mismatch": sizes.mean() > 0.1, "max_quantile_mismatch": high_quantile(sizes) > 1.0}
    assert limit[key] and f"guard.{key}" in said
    assert f"by {sizes.max():.3g} on token {sizes.argmax()} of sample 2 of prompt 'p7', on average by" in said
    assert f"on average by {sizes.mean():.3g} (allowed 0.1, guard.max_mean_mismatch)" in said
    assert f"by at most {high_quantile(sizes):.3g} (allowed 1, guard.max_quantile_mismatch)" in said
    assert "guard.max_logprob_mismatch" not in said and "mismatch/*" in said


def test_in_float32_a_step_is_judged_by_its_tokens_alone_and_a_proof_by_their_mean_too():
    many = Spread(5e-5, 9e-5, TokenDifference(9e-5, 1.0, "p7"))
    GUARD.check_mismatch(3, many)
    assert not GUARD.allows(apart(100 * [5e-5]))


@pytest.mark.parametrize("number", [1, 10, 11, 12, 1000, 10_999, 11_000, 50_000])
def test_the_high_quantile_leaves_a_thousandth_of_the_tokens_beyond_it_and_never_fewer_than_ten(number):
    sizes = np.random.default_rng(number).permutation(number).astype(np.float32)  # 0 to number - 1
    beyond = int((sizes > high_quantile(sizes)).sum())
    assert beyond == min(max(10, number // 1000), number - 1)
    assert high_quantile(sizes) in sizes


def test_the_high_quantile_of_a_step_is_numpys_and_of_nothing_zero():
    sizes = rounding(1_000_000)
    assert high_quantile(sizes) == pytest.approx(np.quantile(sizes, 0.999), rel=1e-3)
    assert high_quantile(sizes[:0]) == 0.0 == Spread.of(sizes[:0], TokenDifference()).mean


def test_a_few_tokens_of_a_small_sample_are_not_a_quantile():
    """A proof has a hundred tokens: its 99.9 % quantile would be the largest of them."""
    sizes = np.full(128, 0.02)
    sizes[:5] = 1.5
    BFLOAT16.check_mismatch(3, spread(sizes))


def test_a_token_is_located_in_its_response():
    assert [locate(token, [2, 1, 3]) for token in range(6)] == [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (2, 2)]


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
    GUARD.check_mismatch(3, one_token(3.9e-4, scale=4.0))
    with pytest.raises(NumericsError) as caught:
        GUARD.check_mismatch(3, one_token(4.1e-4, scale=4.0))
    said = "0.00041 on token 17 of sample 2 of prompt 'p7' (allowed 0.0004, guard.max_logprob_mismatch times 4 for an "
    said += "unlikely token)"
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


def test_a_proof_that_fails_says_its_keys_the_token_and_the_cause():
    failed = Spread(0.5, 0.25, TokenDifference(0.75, 1.0, "p7", sample=1, position=3))
    said = str(GUARD.proof_failed(3, failed, "stale weights"))
    assert said.startswith("step 3: ")
    assert "by 0.75 on token 3 of sample 1 of prompt 'p7' (allowed 0.0001, guard.max_logprob_mismatch)" in said
    assert "on average by 0.5 (allowed 1e-05, guard.max_mean_mismatch)" in said
    assert "by at most 0.25" in said and "max_quantile_mismatch" not in said
    assert said.endswith("Cause: stale weights.")
    said = str(BFLOAT16.proof_failed(3, failed, "stale weights"))
    assert "by at most 0.25 (allowed 1, guard.max_quantile_mismatch)" in said and "max_logprob_mismatch" not in said


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
