"""The names of metrics.jsonl, declared here alone: stable, `/`-separated, the unit in the name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from mixed_r1_ray.types import REWARD_TYPES

SHARERS = ("rollout", "reference", "learner")  # roles that take turns where `cluster.share_gpus`

#: name -> what it is. Rewards by type are the task reward, in [0, 1] (a user's own: whatever it returns);
#: `reward/mean` is the weighted total.
METRICS: dict[str, str] = {
    "reward/mean": "mean total reward of the scored samples",
    "reward/std": "standard deviation of the total reward over the scored samples",
    **{f"reward/{kind}": f"mean task reward of the {kind} samples" for kind in REWARD_TYPES},
    "reward/format": "fraction of scored samples in the demanded format",
    "reward/overlong_penalty": "mean soft overlong penalty; reward/mean and the others are without it",
    "rewards/unscored": "samples of the step that could not be scored",
    "data/bad_rows": "rows of the data set skipped so far",
    "data/epoch": "passes over the training data, with fraction",
    "kl/reference": "mean KL(policy || reference) a token, k3 estimate, nats",
    "kl/old": "mean KL(old policy || policy) a token, k3 estimate, nats",
    "updates": "optimizer steps on the batch; what the learner reports is their mean",
    "updates/skipped": "of these, skipped since their gradient was not finite; the means are without them",
    "loss/policy": "policy loss of the update, corrected, without KL term and entropy bonus",
    "entropy": "mean entropy of the policy a token, nats",
    "grad_norm": "norm of the gradient before clipping",
    "learning_rate": "learning rate of the update",
    "clip/fraction": "fraction of tokens whose ratio was clipped",
    "length/response_tokens": "mean response length, tokens",
    "length/unfinished_fraction": "fraction of responses cut at max_new_tokens",
    "group/zero_variance_fraction": "fraction of groups whose samples all earned the same: no gradient",
    **{f"group/zero_variance_fraction/{kind}": f"the same over {kind} groups" for kind in REWARD_TYPES},
    "dynamic_sampling/refills": "times that the step sampled further prompts",
    "dynamic_sampling/generated_groups": "groups generated for the step; reward/* and group/* are over all of them",
    "dynamic_sampling/filled_groups": "groups without a difference that the step learned from all the same",
    **{
        f"dynamic_sampling/zero_variance_fraction/{kind}": f"fraction of the generated {kind} groups set aside"
        for kind in REWARD_TYPES
    },
    "mismatch/logprob_abs_max": "largest |engine - trainer| log-probability of a sampled token",
    "mismatch/logprob_abs_mean": "mean |engine - trainer| log-probability",
    "mismatch/logprob_abs_q999": "|engine - trainer| that all but 0.1 % of the tokens (at least 10) stay within",
    "mismatch/kl": "KL(engine || trainer) a token, k3 estimate, nats",
    "correction/weight_mean": "mean rollout correction weight a token, bounded",
    "correction/bounded_fraction": "fraction of tokens whose correction weight was truncated or masked",
    "staleness/max": "most versions that a trained token's weights were behind",
    "staleness/mean": "versions that a trained token's weights were behind, mean",
    "time/step_s": "wall time of the step, seconds",
    "time/generate_s": "until the last response was there, seconds",
    "time/reward_s": "waited for rewards after the last response, seconds",
    "time/reference_s": "waited for reference log-probabilities after that, seconds",
    "time/learn_s": "forward, backward and optimizer, seconds",
    "time/sync_s": "weights from learners to engines, seconds",
    "time/idle_s": "the rest of the step, seconds",
    **{
        f"time/turn_{role}_s": f"in which others on the same GPUs went to sleep and {role} woke, part of the phases above; "
        "since the step before, seconds"
        for role in SHARERS
    },
    **{
        f"memory/peak_{role}_gib": f"most memory of a GPU in use, by whomever, in a turn of {role}; since the step before"
        for role in SHARERS
    },
    "time/eval_s": "evaluation on the held-out prompts, seconds",
    "time/checkpoint_s": "for which the checkpoint before this step kept it waiting; it is written in the background, seconds",
    "throughput/samples_per_s": "responses a second of step time",
    "throughput/tokens_per_s": "response tokens a second of step time",
    **{
        f"eval/{mode}/{kind}": f"held-out mean task reward, {kind}, {mode}"
        for mode in ("greedy", "sampled")
        for kind in REWARD_TYPES
    },
    **{
        f"eval/{mode}/{kind}/{part}": what
        for mode in ("greedy", "sampled")
        for kind in REWARD_TYPES
        for part, what in (
            ("se", "its standard error"),
            ("unscored", "held-out prompts that could not be scored"),
        )
    },
    **{
        f"eval/{mode}/mean": f"mean of the held-out task rewards by type, each type the same weight, {mode}"
        for mode in ("greedy", "sampled")
    },
    **{
        f"eval/{mode}/format": f"held-out fraction in the demanded format, {mode}"
        for mode in ("greedy", "sampled")
    },
}

#: Prefixes under which names come from the data.
FAMILIES: dict[str, str] = {
    "reward/source/": "mean task reward of a source",
    "rewards/unscored/source/": "unscored samples of a source",
    "length/response_tokens/": "mean response length of a reward type, tokens",
}


def check_names(names: Iterable[str]) -> None:
    """Raises ValueError for names that are not declared above, with the nearest that is."""
    unknown = [name for name in names if name not in METRICS and not name.startswith(tuple(FAMILIES))]
    if unknown:
        near = {name: difflib.get_close_matches(name, METRICS, n=1) for name in unknown}
        raise ValueError(
            "metrics not declared in runtime/metric_names.py: "
            + ", ".join(name + (f" (nearest: {match[0]})" if match else "") for name, match in near.items())
        )
