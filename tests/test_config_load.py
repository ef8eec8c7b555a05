"""Loading a configuration: what is accepted, what is refused, and in which words."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixed_r1_ray import config_load
from mixed_r1_ray.config import Config
from mixed_r1_ray.config_types import Bounds
from mixed_r1_ray.config_check import CHECKS
from mixed_r1_ray.config_fields import help_text, nearest_keys, schema
from mixed_r1_ray.config_load import config_to_yaml, load_config, parse_command_line
from mixed_r1_ray.errors import ConfigError

CONF = Path(__file__).parents[1] / "conf"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))

ON_GPUS = ("rollout.gpus_per_worker=1", "learner.gpus_per_worker=1")

def refusal(*words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(["conf=quickstart", *words])
    return str(caught.value)


def write(folder: Path, text: str, name: str = "mine.yaml") -> str:
    (folder / name).write_text(text)
    return f"conf={folder / name}"


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_conf_loads_and_survives_being_written(name, tmp_path):
    config = load_config([f"conf={name}"])
    assert type(config) is Config
    assert load_config([write(tmp_path, config_to_yaml(config))]) == config


@pytest.mark.parametrize("name", NAMES)
def test_what_runs_in_bfloat16_is_corrected_for_the_rounding_of_engine_and_trainer(name):
    config = load_config([f"conf={name}"])
    assert config.algo.rollout_correction == {"bfloat16": "token", "float32": "none"}[config.model.dtype]


def test_the_engine_as_old_policy_wants_that_correction_switched_off():
    words = ["conf=internvl_8b", "algo.old_logprobs=rollout"]
    with pytest.raises(ConfigError, match="algo.rollout_correction token would apply it twice; set that to none"):
        load_config(words)
    load_config([*words, "algo.rollout_correction=none"])


def test_every_conf_but_quickstart_says_that_it_was_not_run_yet():
    untested = [name for name in NAMES if "Not yet run on" in (CONF / f"{name}.yaml").read_text()]
    assert untested == [name for name in NAMES if name != "quickstart"]


def test_command_line_beats_file_and_the_last_word_beats_earlier_ones(tmp_path):
    conf = write(tmp_path, "rollout: {group_size: 3}\nlearner: {learning_rate: 2e-5}")
    config = load_config([conf, "rollout.group_size=4", "rollout.group_size=5", "algo.beta=0"])
    assert (config.rollout.group_size, config.learner.learning_rate, config.algo.beta) == (5, 2e-5, 0.0)


def test_values_arrive_as_the_declared_types():
    config = load_config(
        ["conf=quickstart", "learner.betas=[0.8,0.9]", "model.max_tiles=null", "run.name=7", "run.seed=3"]
    )
    assert config.learner.betas == (0.8, 0.9) and type(config.learner.betas) is tuple
    assert config.model.max_tiles is None and config.run.name == "7" and config.run.seed == 3


def test_template_may_hold_equals_signs_and_braces():
    assert (
        load_config(["conf=quickstart", "data.template='a=b {question}'"]).data.template == "a=b {question}"
    )


def test_base_is_read_first_and_overridden(tmp_path):
    write(tmp_path, "rollout: {group_size: 3, temperature: 0.7}", "first.yaml")
    config = load_config([write(tmp_path, "base: first\nrollout: {group_size: 6}")])
    assert (config.rollout.group_size, config.rollout.temperature) == (6, 0.7)


def test_base_that_leads_back_to_itself_is_refused(tmp_path):
    write(tmp_path, "base: mine", "other.yaml")
    with pytest.raises(ConfigError, match="base leads back to itself"):
        load_config([write(tmp_path, "base: other")])


def test_interpolation_is_resolved():
    assert load_config(["conf=quickstart", "run.name=seed${run.seed}", "run.seed=4"]).run.name == "seed4"
    assert "run.name" in refusal("run.name=${run.nothing}")


def test_conf_in_the_working_directory_comes_first(tmp_path, monkeypatch):
    (tmp_path / "conf").mkdir()
    write(tmp_path / "conf", "run: {max_steps: 7}", "quickstart.yaml")
    monkeypatch.chdir(tmp_path)
    assert load_config(["conf=quickstart"]).run.max_steps == 7
    assert load_config(["conf=debug"]).run.name == "debug"  # the shipped ones are still there


def test_base_beside_the_file_wins_over_one_of_that_name_elsewhere(tmp_path):
    write(tmp_path, "run: {max_steps: 9}", "quickstart.yaml")
    assert load_config([write(tmp_path, "base: quickstart")]).run.max_steps == 9


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("rollout.nmworkers=2", "unknown key rollout.nmworkers; did you mean rollout.num_workers?"),
        ("lerner.num_workers=2", "unknown key lerner.num_workers; did you mean learner.num_workers?"),
        ("rollout.learning_rate=1", "did you mean learner.learning_rate?"),
        ("group_size=2", "did you mean rollout.group_size?"),
        ("dryrun=true", "did you mean dry_run?"),
        ("rollout.zzz=1", "rollout has num_workers, "),
        ("zzz.zzz=1", "sections are model, "),
        ("rollout.num_workers=abc", "rollout.num_workers must be int >= 1, not 'abc' (str)"),
        ("rollout.num_workers=1.5", "rollout.num_workers must be int >= 1, not 1.5 (float)"),
        ("rollout.num_workers=true", "rollout.num_workers must be int >= 1, not True (bool)"),
        ("rollout.num_workers=0", "rollout.num_workers must be int >= 1, not 0"),
        ("rollout.temperature=nan", "rollout.temperature must be float > 0, not nan"),
        ("rollout.gpu_memory_fraction=1.5", "must be float > 0 and <= 1, not 1.5"),
        ("run.max_steps=null", "run.max_steps must be int >= 0, not null"),
        ("model.max_tiles=0", "model.max_tiles must be int >= 1 or null, not 0"),
        ("learner.betas=[0.9]", "learner.betas must be list of 2 "),
        ("learner.betas=[a,0.9]", "learner.betas must be list of 2 "),
        ("learner.betas=[0.9,1.0]", "learner.betas must be list of 2 "),
        ("algo.scale_rewards=std", "algo.scale_rewards must be one of group, batch, none, not 'std' (str)"),
        ("tracking.wandb=off", "must be one of disabled, offline, online, not False (bool)"),
        ("data.mixing=by_kind", "data.mixing must be one of proportional, by_type, by_source, not 'by_kind'"),
        ("data.weights.chart=-1", "data.weights must be name: float >= 0, ..., not {'chart': -1.0}"),
        ("data.weights.chart=nan", "data.weights must be name: float >= 0, ..., not {'chart': nan}"),
        ("data.weights.chart=many", "data.weights must be name: float >= 0, ..., not {'chart': 'many'}"),
        ("data.weights={chart:2}", "data.weights must be name: float >= 0, ..., not {'chart:2': None}"),
        ("data.weights=2", "data.weights must be name: float >= 0, ..., not 2 (int)"),
        ("data.curriculum=hard_to_easy", "data.curriculum must be one of none, easy_to_hard"),
        ("data.curriculum_steps=0", "data.curriculum_steps must be int >= 1, not 0"),
        ("data.weight.chart=2", "did you mean data.weights?"),
        ("model=x", "model is a section; give one of its keys, e.g. model.path"),
        ("learner.betas=[0.9", "cannot read 'learner.betas=[0.9'"),
        ("oops", "'oops' is not of the form key=value"),
    ],
)
def test_a_wrong_word_is_refused_by_key_value_and_what_was_expected(word, said):
    message = refusal(word)
    assert said in message and "command line" in message


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["model.max_length=64", "rollout.max_new_tokens=64"],
            "max_length 64 - rollout.max_new_tokens 64 leaves 0 tokens",
        ),
        (
            ["model.max_length=300", "learner.microbatch_tokens=299"],
            "microbatch_tokens 299 < model.max_length 300",
        ),
        (
            ["learner.num_workers=5", "rollout.prompts_per_step=3"],
            "5 > rollout.prompts_per_step 3: 2 ranks would",
        ),
        (["rollout.group_size=1"], "rollout.group_size 1"),
        (["reward.task_weight=0", "reward.format_weight=0"], "0 + reward.format_weight 0 = 0"),
        (["model.min_pixels=100", "model.max_pixels=99"], "model.min_pixels 100 > model.max_pixels 99"),
        (["data.template=hello"], "does not contain {question}"),
        (["data.eval=null", "eval.every=5"], "eval.every 5 asks for evaluations but data.eval is null"),
        (["run.keep_best=eval/greedy/iuo", "eval.every=5"], "nearest: eval/greedy/iou"),
        (["run.keep_best=reward/mean", "eval.every=5"], "run.keep_best reward/mean: no such held-out metric"),
        (["run.keep_best=eval/greedy/mean"], "run.keep_best eval/greedy/mean with eval.every 0"),
        (["data.weights.chart=2"], "data.weights names chart, but data.mixing is proportional"),
        (["model.path=tiny:qwen"], "did you mean tiny:qwen2_5_vl?"),
        (["run.name=a/b"], "run.name 'a/b' must be one folder name"),
        (["run.name=.."], "run.name '..' must be one folder name"),
        (
            ["cluster.share_gpus=true", "rollout.gpus_per_worker=2"],
            "cluster.share_gpus with rollout.gpus_per_worker 2",
        ),
        (
            ["rollout.weight_transfer=broadcast", "rollout.gpus_per_worker=1"],
            "broadcast is between GPUs, but rollout.gpus_per_worker is 1 and learner.gpus_per_worker 0",
        ),
        (
            ["rollout.weight_transfer=broadcast", *ON_GPUS, "cluster.share_gpus=true"],
            "broadcast: NCCL joins no two processes on one GPU",
        ),
        (["rollout.weight_transfer=ipc", *ON_GPUS], "ipc is between processes on one GPU; set cluster.share_gpus=true"),
        (
            ["rollout.weight_transfer=ipc", *ON_GPUS, "cluster.share_gpus=true", "rollout.num_workers=3"],
            "rollout.num_workers 3 - learner.num_workers 1 = 2 engines share their GPU with no learner",
        ),
        (
            ["rollout.weight_transfer=broadcast", *ON_GPUS, "algo.max_staleness=1"],
            "hands weights over at once, but with algo.max_staleness 1",
        ),
        (["algo.advantage_estimator=rloo", "algo.scale_rewards=batch"], "rloo does not divide by what algo.scale"),
        (["algo.advantage_estimator=dr_grpo", "algo.scale_rewards=batch"], "dr_grpo does not divide by what"),
        (
            ["algo.multi_objective_aggregation=normalize_then_sum", "algo.scale_rewards=batch"],
            "normalises within groups, but algo.scale_rewards is batch",
        ),
        (
            ["algo.multi_objective_aggregation=normalize_then_sum", "algo.advantage_estimator=rloo"],
            "estimator of its own, but algo.advantage_estimator is rloo",
        ),
        (["algo.loss=gspo"], "clips of 0.2 and 0.2 would never hold it; give algo.clip_ratio_low=3e-4"),
        (["algo.loss=cispo", "algo.clip_ratio_high=0.28"], "give algo.cispo_ratio_max=1.28"),
        (["algo.cispo_ratio_max=3"], "algo.cispo_ratio_max 3 is of no use to algo.loss grpo"),
        (["algo.loss=cispo", "algo.clip_ratio_c=3"], "algo.clip_ratio_c is for grpo, dapo, dr_grpo"),
        (["algo.clip_ratio_c=1.2"], "algo.clip_ratio_c 1.2 <= 1 + algo.clip_ratio_high 0.2"),
        (["algo.kl_estimator=k1"], "algo.kl_estimator k1 with algo.beta 0.04: the gradient of k1 is 0"),
        (["algo.kl_estimator=k2", "algo.use_bias_correction_kl=true"], "use_bias_correction_kl would bias it"),
        (["algo.beta=0", "algo.use_bias_correction_kl=true"], "but algo.beta is 0 and there is none"),
        (["algo.overlong_buffer=49"], "algo.overlong_buffer 49 > rollout.max_new_tokens 48"),
        (["algo.rollout_correction_mode=mask"], "algo.rollout_correction_mode is set, but algo.rollout_correction is none"),
        (["algo.rollout_correction_max=3"], "algo.rollout_correction_max is set, but algo.rollout_correction is none"),
        (
            ["algo.rollout_correction=token", "algo.rollout_correction_min=0.5"],
            "algo.rollout_correction_min 0.5 is the lower end of mask's band",
        ),
        (
            ["algo.num_minibatches=4", "rollout.prompts_per_step=3"],
            "algo.num_minibatches 4 > rollout.prompts_per_step 3: groups stay whole, so 1 minibatches would be empty",
        ),
        (
            ["learner.num_workers=4", "rollout.prompts_per_step=7", "algo.num_minibatches=2"],
            "learner.num_workers 4 > rollout.prompts_per_step 7 / algo.num_minibatches 2 = 3: 1 ranks would",
        ),
        (
            ["algo.old_logprobs=rollout", "algo.rollout_correction=token"],
            "hold the correction from engine to trainer already",
        ),
        (
            ["algo.max_staleness=1", "cluster.share_gpus=true"],
            "algo.max_staleness 1 generates while the learners work, but with cluster.share_gpus they take turns",
        ),
        (["algo.max_refills=2"], "algo.max_refills 2 bounds algo.dynamic_sampling, which is off"),
        (["learner.lora_rank=8", "learner.freeze=vision"], "learner.freeze vision asks for more"),
        (
            ["learner.schedule_steps=9"],
            "learner.schedule_steps 9: learner.lr_scheduler constant has no end; set learner.lr_scheduler=linear or",
        ),
        (["learner.min_lr_ratio=0.1"], "learner.min_lr_ratio 0.1: learner.lr_scheduler constant has no end"),
        (
            ["learner.lr_scheduler=cosine", "learner.warmup_steps=40", "run.max_steps=10", "algo.num_epochs=4"],
            "learner.warmup_steps 40 >= learner.schedule_steps 40 = run.max_steps 10 x algo.num_minibatches 1 x "
            "algo.num_epochs 4: nothing is left",
        ),
        (["learner.lr_scheduler=linear", "learner.schedule_steps=5"], "warmup_steps 5 >= learner.schedule_steps 5:"),
        (["reward.iou_dynamic_steps=9"], "reward.iou_mode continuous has no rising threshold; set it to dynamic"),
        (["learner.lora_alpha=8"], "learner.lora_alpha 8 scales adapters, but learner.lora_rank is 0"),
    ],
)
def test_contradictions_show_their_arithmetic(words, said):
    assert said in refusal(*words)


@pytest.mark.parametrize(
    "words",
    [
        ["algo.loss=dapo", "algo.clip_ratio_high=0.28", "algo.beta=0", "algo.overlong_buffer=12"],
        ["algo.loss=dr_grpo", "algo.advantage_estimator=dr_grpo", "algo.beta=0"],
        ["algo.loss=dr_grpo", "algo.advantage_estimator=dr_grpo", "algo.scale_rewards=none"],
        ["algo.loss=gspo", "algo.clip_ratio_low=3e-4", "algo.clip_ratio_high=4e-4", "algo.beta=0"],
        ["algo.loss=cispo", "algo.cispo_ratio_max=4", "algo.beta=0", "algo.entropy_coef=0.001"],
        ["algo.clip_ratio_c=3", "algo.kl_estimator=k2", "algo.mask_truncated=true"],
        ["algo.kl_estimator=k1", "algo.use_bias_correction_kl=true", "algo.overlong_buffer=48"],
        ["algo.advantage_estimator=rloo", "algo.rollout_correction=sequence"],
        ["algo.rollout_correction=token", "algo.rollout_correction_mode=mask", "algo.rollout_correction_min=0.5"],
        ["algo.num_minibatches=4", "algo.num_epochs=2", "algo.rollout_correction=token", "learner.num_workers=8"],
        ["algo.old_logprobs=rollout"],
        ["learner.lr_scheduler=cosine", "learner.min_lr_ratio=0.1", "learner.schedule_steps=6"],
        ["learner.lr_scheduler=linear", "run.max_steps=0"],
        ["reward.iou_mode=dynamic", "reward.iou_dynamic_steps=100"],
        ["algo.dynamic_sampling=true", "algo.max_refills=2", "algo.max_staleness=2"],
    ],
)
def test_combinations_of_the_grpo_family_that_belong_together_load(words):
    load_config(["conf=quickstart", *words])


def test_every_contradiction_check_is_passed_by_the_defaults():
    assert len(CHECKS) >= 11 and not [check for check in CHECKS if check(Config())]


def test_limits_themselves_are_allowed():
    words = ["model.max_length=65", "rollout.max_new_tokens=64", "learner.microbatch_tokens=65"]
    load_config(
        [
            "conf=quickstart",
            *words,
            "learner.num_workers=3",
            "rollout.prompts_per_step=3",
            "rollout.group_size=2",
        ]
    )


def test_all_out_of_bounds_values_are_told_at_once_each_with_its_origin(tmp_path):
    conf = write(tmp_path, "rollout: {group_size: 0}")
    with pytest.raises(ConfigError) as caught:
        load_config([conf, "algo.beta=-1"])
    group_size, beta = str(caught.value).splitlines()
    assert group_size.startswith(f"{tmp_path / 'mine.yaml'}: rollout.group_size")
    assert beta == "command line: algo.beta must be float >= 0, not -1.0"


@pytest.mark.parametrize("text", ["- a\n- b", "a: [1", "just words", "rollout: 3", "rolout: {group_size: 3}"])
def test_a_file_that_is_no_configuration_is_refused_by_name(text, tmp_path):
    with pytest.raises(ConfigError, match="mine.yaml"):
        load_config([write(tmp_path, text)])


def test_a_section_with_nothing_under_it_is_like_none(tmp_path):
    assert load_config([write(tmp_path, "rollout:\n  # group_size: 3\n")]) == Config()


def test_weights_by_name_come_together_from_file_and_command_line(tmp_path):
    conf = write(tmp_path, "data: {mixing: by_source, weights: {chartqa: 2, vsr: 3}}")
    words = ["data.weights.vsr=0.5", "data.weights.ai2d=0", "data.weights={plotqa: 4}"]
    assert load_config([conf, *words]).data.weights == {"chartqa": 2.0, "vsr": 0.5, "ai2d": 0.0, "plotqa": 4.0}


def test_unknown_conf_names_the_nearest_and_all():
    with pytest.raises(ConfigError) as caught:
        load_config(["conf=internvl8b"])
    assert "did you mean internvl_8b" in str(caught.value)
    assert all(name in str(caught.value) for name in NAMES)


def test_missing_conf_and_missing_file_are_told_apart():
    with pytest.raises(ConfigError, match="conf=NAME is missing; there are debug"):
        load_config(["run.seed=1"])
    with pytest.raises(ConfigError, match="there is no such file"):
        load_config(["conf=nowhere/a.yaml"])


def test_switches_are_told_from_overrides():
    command = parse_command_line(["conf=a", "dry_run=true", "run.seed=1", "conf=b"])
    assert (command.conf, command.dry_run, command.help, command.overrides) == (
        "b",
        True,
        False,
        ("run.seed=1",),
    )
    assert parse_command_line(["--help"]).help
    with pytest.raises(ConfigError, match="dry_run must be true or false, not 'maybe'"):
        parse_command_line(["dry_run=maybe"])


def test_every_field_is_documented_typed_and_in_the_help():
    text = help_text()
    for key, field in schema().items():
        assert len(field.doc) > 10 and field.doc.endswith("."), key
        assert f"\n{key}: {field.describe()} = " in text
    assert len(schema()) == sum(len(fields(section.default_factory)) for section in fields(Config))


def test_one_comment_above_two_fields_documents_both_and_no_more():
    docs = {key: field.doc for key, field in schema().items()}
    assert docs["model.min_pixels"] == docs["model.max_pixels"] != docs["model.max_tiles"]


@pytest.mark.parametrize("key", sorted(schema()))
def test_a_key_with_one_letter_missing_is_found_again(key):
    section, _, name = key.partition(".")
    if len(name) > 4:
        assert key in nearest_keys(f"{section}.{name[:2]}{name[3:]}")


@settings(deadline=None)
@given(st.text(max_size=30))
def test_no_word_ends_in_anything_but_a_config_or_a_config_error(word):
    try:
        load_config(["conf=quickstart", word])
    except ConfigError:
        pass


@settings(deadline=None)
@given(st.sampled_from(sorted(schema())), st.text(max_size=20))
def test_no_value_ends_in_anything_but_a_config_or_a_config_error(key, value):
    try:
        load_config(["conf=quickstart", f"{key}={value}"])
    except ConfigError as error:
        assert key in str(error) or value in str(error)


def test_bounds_are_closed_below_open_above_and_refuse_nan():
    inside = Bounds(above=0, most=1)
    assert [inside.allow(value) for value in (0, 1e-9, 1, 1.1, float("nan"))] == [
        False,
        True,
        True,
        False,
        False,
    ]
    assert Bounds(least=0).allow(0) and str(inside) == "> 0 and <= 1"


def test_installed_package_finds_confs_without_a_source_tree(tmp_path, monkeypatch):
    shared = tmp_path / "share" / "mixed_r1_ray" / "conf"
    shared.mkdir(parents=True)
    write(shared, "run: {max_steps: 8}", "shipped.yaml")
    monkeypatch.setattr(config_load.sys, "prefix", str(tmp_path))
    assert load_config(["conf=shipped"]).run.max_steps == 8
