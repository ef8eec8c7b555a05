"""Values that are each valid and cannot stand together; every message shows its arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path, PurePath

from .config import Config, LearnerConfig
from .config_check_algo import ALGO_CHECKS
from .schedules import learning_rate_steps
from .types import REWARD_TYPES

TINY_FAMILIES = ("internvl", "qwen2_5_vl")
HELD_OUT_METRICS = [
    f"eval/{mode}/{part}" for mode in ("greedy", "sampled") for part in ("mean", "format", *REWARD_TYPES)
]


def contradictions(config: Config) -> list[str]:
    """Every contradiction in `config`, a sentence each; empty when there is none."""
    return [message for check in CHECKS if (message := check(config))]


def _prompt_has_room(config: Config) -> str | None:
    length, new = config.model.max_length, config.rollout.max_new_tokens
    if length - new < 1:
        return (
            f"model.max_length {length} - rollout.max_new_tokens {new} leaves {length - new} tokens "
            "for the prompt; raise the first or lower the second"
        )
    return None


def _sample_fits_microbatch(config: Config) -> str | None:
    room, length = config.learner.microbatch_tokens, config.model.max_length
    if room < length:
        return (
            f"learner.microbatch_tokens {room} < model.max_length {length}: a microbatch could not hold "
            f"one sample; raise it to {length} or more"
        )
    return None


def _every_rank_has_a_group(config: Config) -> str | None:
    ranks, prompts = config.learner.num_workers, config.rollout.prompts_per_step
    cuts = config.algo.num_minibatches
    if cuts > prompts:
        return (
            f"algo.num_minibatches {cuts} > rollout.prompts_per_step {prompts}: groups stay whole, so "
            f"{cuts - prompts} minibatches would be empty"
        )
    share = prompts // cuts
    if ranks > share:
        cut = f" / algo.num_minibatches {cuts} = {share}" if cuts > 1 else ""
        return (
            f"learner.num_workers {ranks} > rollout.prompts_per_step {prompts}{cut}: "
            f"{ranks - share} ranks would have no group to learn from"
        )
    return None


def _group_can_differ(config: Config) -> str | None:
    if config.rollout.group_size < 2:
        return (
            "rollout.group_size 1: an advantage is a reward minus its group's mean, so it would always be 0; "
            "give 2 or more"
        )
    return None


def _reward_is_not_zero(config: Config) -> str | None:
    if config.reward.task_weight + config.reward.format_weight == 0:
        return "reward.task_weight 0 + reward.format_weight 0 = 0: every total would be 0; raise one of them"
    return None


def _custom_types_are_types(config: Config) -> str | None:
    for kind in config.reward.custom_types:
        if kind not in REWARD_TYPES:
            near = get_close_matches(kind, REWARD_TYPES, n=1)
            return f"reward.custom_types names {kind!r}; " + (
                f"did you mean {near[0]!r}?" if near else f"reward types are {', '.join(REWARD_TYPES)}"
            )
    if config.reward.custom is None and config.reward.custom_types != ["custom"]:
        named = ", ".join(config.reward.custom_types)
        return f"reward.custom_types {named}: there is no function to score them; give reward.custom"
    return None


def _custom_file_exists(config: Config) -> str | None:
    path, colon, name = (config.reward.custom or "").rpartition(":")
    if colon and path.endswith(".py") and not Path(path).is_file():
        return f"reward.custom {path}:{name}: there is no file {path}"
    return None


def _lora_leaves_the_rest_alone(config: Config) -> str | None:
    learner, default = config.learner, LearnerConfig()
    if learner.lora_rank > 0 and learner.freeze != "vision+projector":
        return (
            f"learner.lora_rank {learner.lora_rank} trains adapters of the language model and nothing else, but "
            f"learner.freeze {learner.freeze} asks for more; set learner.freeze=vision+projector"
        )
    if learner.lora_rank == 0 and learner.lora_alpha != default.lora_alpha:
        return f"learner.lora_alpha {learner.lora_alpha:g} scales adapters, but learner.lora_rank is 0; set that, too"
    return None


def _pixels_in_order(config: Config) -> str | None:
    least, most = config.model.min_pixels, config.model.max_pixels
    if least is not None and most is not None and least > most:
        return f"model.min_pixels {least} > model.max_pixels {most}; swap them or drop one"
    return None


def _template_asks_the_question(config: Config) -> str | None:
    if "{question}" not in config.data.template:
        return f"data.template {config.data.template!r} does not contain {{question}}: nothing would be asked"
    return None


def _evaluation_has_data(config: Config) -> str | None:
    if config.eval.every > 0 and config.data.eval is None:
        every = config.eval.every
        return f"eval.every {every} asks for evaluations but data.eval is null; give data or set it to 0"
    return None


def _weights_are_of_strata(config: Config) -> str | None:
    data = config.data
    if data.weights and data.mixing == "proportional":
        return (
            f"data.weights names {', '.join(data.weights)}, but data.mixing is proportional, which takes rows as the "
            "data has them; give data.mixing=by_type or by_source"
        )
    return None


def _best_can_be_told(config: Config) -> str | None:
    metric, every = config.run.keep_best, config.eval.every
    if metric is None:
        return None
    if metric not in HELD_OUT_METRICS:
        near = ", ".join(get_close_matches(metric, HELD_OUT_METRICS, n=3, cutoff=0.4) or HELD_OUT_METRICS[:3])
        return f"run.keep_best {metric}: no such held-out metric; nearest: {near}"
    if every == 0:
        return f"run.keep_best {metric} with eval.every 0: nothing is evaluated on the way; raise eval.every"
    return None


def _tiny_family_exists(config: Config) -> str | None:
    prefix, colon, family = config.model.path.partition(":")
    if prefix == "tiny" and colon and family not in TINY_FAMILIES:
        near = " or tiny:".join(get_close_matches(family, TINY_FAMILIES, n=1, cutoff=0.3) or TINY_FAMILIES)
        return f"model.path {config.model.path}: no such tiny family; did you mean tiny:{near}?"
    return None


def _schedule_has_an_end(config: Config) -> str | None:
    learner, default = config.learner, LearnerConfig()
    if learner.lr_scheduler == "constant":
        for key in ("min_lr_ratio", "schedule_steps"):
            if getattr(learner, key) != getattr(default, key):
                return (
                    f"learner.{key} {getattr(learner, key)}: learner.lr_scheduler constant has no end; "
                    "set learner.lr_scheduler=linear or cosine"
                )
        return None
    steps, warmup = learning_rate_steps(config), learner.warmup_steps
    if warmup < steps or not config.run.max_steps:
        return None
    run = f"run.max_steps {config.run.max_steps}"
    cuts = f"algo.num_minibatches {config.algo.num_minibatches} x algo.num_epochs {config.algo.num_epochs}"
    origin = "" if learner.schedule_steps else f" = {run} x {cuts}"
    return (
        f"learner.warmup_steps {warmup} >= learner.schedule_steps {steps}{origin}: nothing is left in which the "
        "learning rate could fall; lower the first or raise the second"
    )


def _threshold_rises(config: Config) -> str | None:
    steps, mode = config.reward.iou_dynamic_steps, config.reward.iou_mode
    if steps is not None and mode != "dynamic":
        return f"reward.iou_dynamic_steps {steps}: reward.iou_mode {mode} has no rising threshold; set it to dynamic"
    return None


def _run_name_is_a_folder_name(config: Config) -> str | None:
    name = config.run.name
    if name in ("", ".", "..") or PurePath(name).name != name:
        return f"run.name {name!r} must be one folder name; run.dir says where that folder is made"
    return None


def _shared_gpus_are_single(config: Config) -> str | None:
    gpus = config.rollout.gpus_per_worker
    if config.cluster.share_gpus and gpus > 1:
        return (
            f"cluster.share_gpus with rollout.gpus_per_worker {gpus}: an engine over several GPUs cannot "
            "share them; set rollout.gpus_per_worker=1 or cluster.share_gpus=false"
        )
    return None


def _weights_find_their_way(config: Config) -> str | None:
    way, rollout, learner = config.rollout.weight_transfer, config.rollout, config.learner
    if way in ("auto", "object_store"):
        return None
    said, instead = f"rollout.weight_transfer {way}", "set rollout.weight_transfer=auto"
    if config.algo.max_staleness:
        return (
            f"{said} hands weights over at once, but with algo.max_staleness {config.algo.max_staleness} an engine takes "
            f"them when it comes to them; {instead}"
        )
    if not (rollout.gpus_per_worker and learner.gpus_per_worker):
        return (
            f"{said} is between GPUs, but rollout.gpus_per_worker is {rollout.gpus_per_worker} and "
            f"learner.gpus_per_worker {learner.gpus_per_worker}; {instead}"
        )
    if way == "broadcast" and config.cluster.share_gpus:
        return f"{said}: NCCL joins no two processes on one GPU, as cluster.share_gpus asks; {instead}"
    if way == "ipc" and not config.cluster.share_gpus:
        return f"{said} is between processes on one GPU; set cluster.share_gpus=true, or {instead.removeprefix('set ')}"
    if way == "ipc" and rollout.num_workers > learner.num_workers:
        alone = rollout.num_workers - learner.num_workers
        return (
            f"{said}: rollout.num_workers {rollout.num_workers} - learner.num_workers {learner.num_workers} = {alone} "
            f"engines share their GPU with no learner; {instead}"
        )
    return None


CHECKS: tuple[Callable[[Config], str | None], ...] = (
    _prompt_has_room,
    _sample_fits_microbatch,
    _every_rank_has_a_group,
    _group_can_differ,
    _reward_is_not_zero,
    _custom_types_are_types,
    _custom_file_exists,
    _lora_leaves_the_rest_alone,
    _pixels_in_order,
    _template_asks_the_question,
    _evaluation_has_data,
    _weights_are_of_strata,
    _best_can_be_told,
    _schedule_has_an_end,
    _threshold_rises,
    _tiny_family_exists,
    _run_name_is_a_folder_name,
    _shared_gpus_are_single,
    _weights_find_their_way,
    *ALGO_CHECKS,
)
