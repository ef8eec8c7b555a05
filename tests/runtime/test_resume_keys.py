"""Which keys a continued run may have otherwise, and how it is told."""

from __future__ import annotations

import pytest

from mixed_r1_ray.config import Config
from mixed_r1_ray.config_fields import schema
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.runtime.resume_keys import ANOTHER_RUN, MAY_CHANGE
from mixed_r1_ray.runtime.run_config import read_config
from mixed_r1_ray.runtime.run_dir import open_run_dir

#: What a user turns after an out-of-memory, on another cluster, or to look at the run otherwise.
TURNED = {
    "learner.microbatch_tokens": 4096,
    "learner.gradient_checkpointing": True,
    "learner.offload": "optimizer",
    "learner.gpus_per_worker": 1,
    "learner.placement": "spread",
    "reference.num_workers": 2,
    "reference.gpus_per_worker": 1,
    "rollout.gpus_per_worker": 2,
    "rollout.weight_transfer": "object_store",
    "reward.custom_timeout_s": 60.0,
    "reward.math_timeout_s": 9.0,
    "data.eval": "other.parquet",
    "eval.prompts_per_type": 50,
    "eval.every": 7,
}


def configured(folder, changes=(), **run) -> Config:
    config = Config()
    config.run.dir, config.run.name, config.run.resume = str(folder), "one", "auto"
    for key, value in [*dict(changes).items(), *((f"run.{name}", value) for name, value in run.items())]:
        section, _, name = key.partition(".")
        setattr(getattr(config, section), name, value)
    return config


def begun(folder, changes=(), **run) -> None:
    with open_run_dir(configured(folder, changes, **run)) as run_dir:
        run_dir.metrics_file.write_text('{"step": 1}\n')


def continued(folder, changes=(), **run) -> tuple[str, ...]:
    with open_run_dir(configured(folder, changes, **run)) as run_dir:
        assert run_dir.resumed
        return run_dir.warnings


def test_every_key_of_the_schema_is_decided_one_way():
    """A new key must be put into one of the two lists of runtime/resume_keys.py."""
    assert schema().keys() - MAY_CHANGE - ANOTHER_RUN == set(), "in neither list"
    assert (MAY_CHANGE | ANOTHER_RUN) - schema().keys() == set(), "no such keys"
    assert MAY_CHANGE & ANOTHER_RUN == set()


@pytest.mark.parametrize("key", TURNED)
def test_what_only_says_where_and_how_fast_may_change_and_is_told(tmp_path, key):
    begun(tmp_path)
    old = schema()[key].default
    told = f"continued with {key}: {'null' if old is None else old} -> {TURNED[key]}"
    assert continued(tmp_path, {key: TURNED[key]}) == (told,)
    section, _, name = key.partition(".")
    assert read_config(tmp_path / "one" / "config.yaml")[0][section][name] == TURNED[key]
    assert continued(tmp_path, {key: TURNED[key]}) == ()  # it is the run's own from now on


@pytest.mark.parametrize(
    ("key", "value"),
    [("learner.learning_rate", 1.0), ("learner.lr_scheduler", "linear"), ("rollout.group_size", 4), ("run.seed", 1)]
    + [("data.weights", {"iou": 2.0}), ("learner.betas", (0.9, 0.99)), ("data.train", "x.parquet")],
)
def test_what_changes_what_is_learned_makes_another_run(tmp_path, key, value):
    begun(tmp_path)
    with pytest.raises(UserError, match=f"makes a different run:\n  {key}"):
        continued(tmp_path, {key: value})


SCHEDULED = {
    "learner.schedule_steps": {"learner.lr_scheduler": "cosine", "algo.num_minibatches": 4},
    "reward.iou_dynamic_steps": {"reward.iou_mode": "dynamic"},
}


@pytest.mark.parametrize(("key", "steps"), [("learner.schedule_steps", 640), ("reward.iou_dynamic_steps", 160)])
def test_a_longer_run_does_not_stretch_a_schedule_unless_it_is_told_to_keep_it(tmp_path, key, steps):
    used = SCHEDULED[key]
    begun(tmp_path, used, max_steps=160)
    with pytest.raises(UserError) as raised:
        continued(tmp_path, used, max_steps=320)
    assert f"{key}: {steps} -> {2 * steps}\n" in str(raised.value)
    assert f"{key}={steps} keeps it as it was" in str(raised.value)
    assert continued(tmp_path, used | {key: steps}, max_steps=320) == ("continued with run.max_steps: 160 -> 320",)


def test_without_a_schedule_in_use_a_run_may_be_longer(tmp_path):
    begun(tmp_path, max_steps=160)
    assert continued(tmp_path, max_steps=320) == ("continued with run.max_steps: 160 -> 320",)


def test_a_schedule_of_its_own_length_does_not_mind_a_longer_run(tmp_path):
    used = {"learner.lr_scheduler": "linear", "learner.schedule_steps": 100}
    begun(tmp_path, used, max_steps=160)
    continued(tmp_path, used, max_steps=320)
    with pytest.raises(UserError, match="learner.schedule_steps: 100 -> 320"):
        continued(tmp_path, {"learner.lr_scheduler": "linear"}, max_steps=320)


def test_a_run_of_an_older_version_that_had_no_such_key_is_held_to_its_length(tmp_path):
    begun(tmp_path, {"reward.iou_mode": "dynamic"}, max_steps=160)
    file = tmp_path / "one" / "config.yaml"
    file.write_text("".join(line for line in file.read_text().splitlines(True) if "iou_dynamic_steps" not in line))
    with pytest.raises(UserError, match="reward.iou_dynamic_steps: 160 -> 320"):
        continued(tmp_path, {"reward.iou_mode": "dynamic"}, max_steps=320)


def test_a_longer_run_with_stale_samples_says_what_differs(tmp_path):
    begun(tmp_path, {"algo.max_staleness": 2}, max_steps=160)
    assert any("newer weights" in text for text in continued(tmp_path, {"algo.max_staleness": 2}, max_steps=320))
