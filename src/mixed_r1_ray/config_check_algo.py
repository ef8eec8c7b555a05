"""Settings of `algo` that cannot stand together, or of which one would silently do nothing."""

from __future__ import annotations

from collections.abc import Callable

from .config import AlgoConfig, Config

LARGEST_GSPO_CLIP = 0.1  # a mean log-ratio over a response is thousandths; the paper clips at 3e-4 and 4e-4


def _estimator_agrees_with_scale(config: Config) -> str | None:
    estimator, scale = config.algo.advantage_estimator, config.algo.scale_rewards
    if estimator != "grpo" and scale != "group" and (estimator, scale) != ("dr_grpo", "none"):
        return (
            f"algo.advantage_estimator {estimator} does not divide by what algo.scale_rewards {scale} names; "
            "leave that at group, or set the estimator to grpo"
        )
    return None


def _aggregation_agrees_with_scale(config: Config) -> str | None:
    algo = config.algo
    if algo.multi_objective_aggregation == "normalize_then_sum" and algo.scale_rewards != "group":
        return (
            f"algo.multi_objective_aggregation normalize_then_sum normalises within groups, but "
            f"algo.scale_rewards is {algo.scale_rewards}; leave it at group"
        )
    return None


def _aggregation_agrees_with_estimator(config: Config) -> str | None:
    algo = config.algo
    if algo.multi_objective_aggregation == "normalize_then_sum" and algo.advantage_estimator != "grpo":
        return (
            "algo.multi_objective_aggregation normalize_then_sum is an estimator of its own, but "
            f"algo.advantage_estimator is {algo.advantage_estimator}; leave that at grpo"
        )
    return None


def _gspo_clip_can_hold(config: Config) -> str | None:
    algo = config.algo
    least = min(algo.clip_ratio_low, algo.clip_ratio_high)
    if algo.loss == "gspo" and least >= LARGEST_GSPO_CLIP:
        return (
            "algo.loss gspo clips the mean ratio of a whole response, which stays within thousandths of 1: "
            f"clips of {algo.clip_ratio_low:g} and {algo.clip_ratio_high:g} would never hold it; "
            "give algo.clip_ratio_low=3e-4 algo.clip_ratio_high=4e-4"
        )
    return None


def _cispo_has_a_cap_of_its_own(config: Config) -> str | None:
    algo, default = config.algo, AlgoConfig()
    clips = (algo.clip_ratio_low, algo.clip_ratio_high)
    if algo.loss == "cispo" and clips != (default.clip_ratio_low, default.clip_ratio_high):
        return (
            "algo.loss cispo does not look at algo.clip_ratio_low and algo.clip_ratio_high, it caps ratios "
            f"at algo.cispo_ratio_max; for verl's clip_ratio_high {algo.clip_ratio_high:g} give "
            f"algo.cispo_ratio_max={1 + algo.clip_ratio_high:g}"
        )
    if algo.loss != "cispo" and algo.cispo_ratio_max != default.cispo_ratio_max:
        return (
            f"algo.cispo_ratio_max {algo.cispo_ratio_max:g} is of no use to algo.loss {algo.loss}, which "
            "clips with algo.clip_ratio_low and algo.clip_ratio_high"
        )
    return None


def _dual_clip_lies_outside_the_clip(config: Config) -> str | None:
    algo = config.algo
    if algo.clip_ratio_c is None:
        return None
    if algo.loss in ("gspo", "cispo"):
        return f"algo.clip_ratio_c is for grpo, dapo, dr_grpo, but algo.loss is {algo.loss}; set it to null"
    if algo.clip_ratio_c <= 1 + algo.clip_ratio_high:
        return (
            f"algo.clip_ratio_c {algo.clip_ratio_c:g} <= 1 + algo.clip_ratio_high {algo.clip_ratio_high:g}: "
            "it would hold ratios that the clip leaves free; the usual value is 3"
        )
    return None


def _kl_has_a_gradient(config: Config) -> str | None:
    algo = config.algo
    if algo.beta == 0 and algo.use_bias_correction_kl:
        return (
            "algo.use_bias_correction_kl corrects the KL term, but algo.beta is 0 and there is none; "
            "set it to false"
        )
    if algo.beta > 0 and algo.kl_estimator == "k1" and not algo.use_bias_correction_kl:
        return (
            f"algo.kl_estimator k1 with algo.beta {algo.beta:g}: the gradient of k1 is 0 in expectation, so "
            "the KL term would be noise; take k2, or set algo.use_bias_correction_kl=true"
        )
    if algo.beta > 0 and algo.kl_estimator == "k2" and algo.use_bias_correction_kl:
        return (
            "algo.kl_estimator k2 has the gradient of KL(policy || reference) as it is, and "
            "algo.use_bias_correction_kl would bias it; set that to false, or take k3"
        )
    return None


def _overlong_buffer_fits(config: Config) -> str | None:
    buffer, limit = config.algo.overlong_buffer, config.rollout.max_new_tokens
    if buffer > limit:
        return (
            f"algo.overlong_buffer {buffer} > rollout.max_new_tokens {limit}: every response would be "
            "penalised; lower the first"
        )
    return None


def _correction_is_asked_for(config: Config) -> str | None:
    algo, default = config.algo, AlgoConfig()
    names = ("rollout_correction_mode", "rollout_correction_max", "rollout_correction_min")
    changed = [name for name in names if getattr(algo, name) != getattr(default, name)]
    if algo.rollout_correction == "none" and changed:
        return f"algo.{changed[0]} is set, but algo.rollout_correction is none; give token or sequence"
    if algo.rollout_correction_mode == "truncate" and algo.rollout_correction_min is not None:
        return (
            f"algo.rollout_correction_min {algo.rollout_correction_min:g} is the lower end of mask's band, "
            "which truncate does not have; set algo.rollout_correction_mode=mask, or the first to null"
        )
    return None


def _engine_is_corrected_once(config: Config) -> str | None:
    algo = config.algo
    if algo.old_logprobs == "rollout" and algo.rollout_correction != "none":
        return (
            "algo.old_logprobs rollout measures ratios against the engine, so they hold the correction from engine "
            f"to trainer already, and algo.rollout_correction {algo.rollout_correction} would apply it twice; set "
            "that to none, or take algo.old_logprobs=trainer"
        )
    return None


def _refills_are_asked_for(config: Config) -> str | None:
    algo, default = config.algo, AlgoConfig()
    if not algo.dynamic_sampling and algo.max_refills != default.max_refills:
        return f"algo.max_refills {algo.max_refills} bounds algo.dynamic_sampling, which is off; set it to true"
    return None


def _engines_can_run_ahead(config: Config) -> str | None:
    staleness = config.algo.max_staleness
    if staleness and config.cluster.share_gpus:
        return (
            f"algo.max_staleness {staleness} generates while the learners work, but with cluster.share_gpus they take "
            "turns on the same GPUs; set the first to 0 or the second to false"
        )
    return None


ALGO_CHECKS: tuple[Callable[[Config], str | None], ...] = (
    _estimator_agrees_with_scale,
    _aggregation_agrees_with_scale,
    _aggregation_agrees_with_estimator,
    _gspo_clip_can_hold,
    _cispo_has_a_cap_of_its_own,
    _dual_clip_lies_outside_the_clip,
    _kl_has_a_gradient,
    _overlong_buffer_fits,
    _correction_is_asked_for,
    _engine_is_corrected_once,
    _refills_are_asked_for,
    _engines_can_run_ahead,
)
