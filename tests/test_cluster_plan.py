"""The placement plan's arithmetic."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mixed_r1_ray.cluster_plan import make_plan
from mixed_r1_ray.config import Config, LearnerConfig, RolloutConfig
from mixed_r1_ray.config_load import load_config
from mixed_r1_ray.errors import UserError


def plan_of(*words: str):
    return make_plan(load_config(["conf=quickstart", *words]))


def test_quickstart_fits_two_cpus_also_with_two_learners_and_two_engines():
    for words in (
        [],
        ["learner.num_workers=2"],
        ["learner.num_workers=2", "rollout.num_workers=2", "reward.num_workers=2"],
    ):
        plan_of(*words).check({"CPU": 2.0})


def test_defaults_of_the_schema_fit_two_cpus_with_two_learners():
    make_plan(replace(Config(), learner=LearnerConfig(num_workers=2))).check({"CPU": 2.0})


def test_needs_are_summed_over_roles():
    plan = plan_of(
        *("data.num_workers=2", "data.cpus_per_worker=0.25"),
        *("rollout.num_workers=3", "rollout.cpus_per_worker=2", "rollout.gpus_per_worker=2"),
        *("reward.num_workers=1", "reward.cpus_per_worker=0.5"),
        *("learner.num_workers=4", "learner.cpus_per_worker=1", "learner.gpus_per_worker=1"),
        *("reference.num_workers=1", "reference.cpus_per_worker=1", "reference.gpus_per_worker=1"),
    )
    assert plan.needed() == {"CPU": 0.5 + 6 + 0.5 + 4 + 1, "GPU": 6 + 4 + 1}


def test_no_reference_without_kl():
    assert plan_of().role("reference").count == 2
    assert plan_of("algo.beta=0").role("reference") is None


def test_under_lora_the_learners_are_the_reference():
    assert plan_of("learner.lora_rank=8").role("reference") is None


def test_shortage_shows_terms_sum_what_is_there_and_what_to_lower():
    plan = plan_of("rollout.num_workers=3", "rollout.cpus_per_worker=0.5", "learner.cpus_per_worker=1")
    with pytest.raises(UserError) as caught:
        plan.check({"CPU": 2.0, "memory": 1e9})
    assert str(caught.value) == (
        "data 1 x 0.1 + rollout 3 x 0.5 + reward 1 x 0.1 + learner 1 x 1 + reference 2 x 0.2 = 3.1 CPUs "
        "needed, 2 available; lower rollout.num_workers or rollout.cpus_per_worker, or give Ray more CPUs"
    )


def test_a_lone_actor_that_is_too_large_is_not_told_to_be_fewer():
    with pytest.raises(UserError, match="lower learner.cpus_per_worker, or"):
        plan_of("learner.cpus_per_worker=3").check({"CPU": 2.0})


def test_missing_gpus_are_a_shortage_of_their_own():
    with pytest.raises(
        UserError, match=r"rollout 1 x 1 = 1 GPUs needed, 0 available; lower rollout.gpus_per_worker"
    ):
        plan_of("rollout.gpus_per_worker=1").check({"CPU": 2.0})


def test_exact_fit_is_a_fit_in_spite_of_rounding():
    config = replace(Config(), rollout=RolloutConfig(num_workers=7, cpus_per_worker=0.1))
    plan = make_plan(config)
    assert sum([0.2, 0.7, 0.1, 0.4, 0.3]) == pytest.approx(1.7)
    plan.check({"CPU": 1.7})
    with pytest.raises(UserError):
        plan.check({"CPU": 1.69})


def test_debug_shares_one_gpu_between_three_roles():
    plan = make_plan(load_config(["conf=debug"]))
    assert [plan.role(name).gpus for name in ("rollout", "learner", "reference")] == [0.3333] * 3
    plan.check({"CPU": 2.0, "GPU": 1.0})
    without_kl = make_plan(load_config(["conf=debug", "algo.beta=0"]))
    assert [without_kl.role(name).gpus for name in ("rollout", "learner")] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("name", "gpus"), [("internvl_8b", 8), ("qwen2_5_vl_7b", 8), ("internvl_2b", 4), ("qwen2_5_vl_3b", 4)]
)
def test_cluster_confs_need_the_gpus_their_first_line_promises(name, gpus):
    assert make_plan(load_config([f"conf={name}"])).needed()["GPU"] == gpus


def test_shared_gpus_are_bundles_of_one_actor_a_role():
    plan = make_plan(load_config(["conf=debug", "rollout.num_workers=2", "learner.num_workers=3"]))
    shared = [bundle for bundle in plan.bundles() if bundle.gpus]
    assert [bundle.actors for bundle in shared] == [
        (("rollout", 0), ("learner", 0), ("reference", 0)),
        (("rollout", 1), ("learner", 1)),
        (("learner", 2),),
    ]
    assert shared[0].cpus == pytest.approx(0.3 + 0.3 + 0.2)
    assert plan.needed()["GPU"] == 3
    with pytest.raises(UserError, match="the most of rollout 2, learner 3, reference 1 = 3 GPUs needed, 2 available"):
        plan.check({"CPU": 9, "GPU": 2})


def test_every_actor_is_in_one_bundle():
    for words in (["conf=internvl_8b"], ["conf=debug", "rollout.num_workers=2"]):
        plan = make_plan(load_config(words))
        actors = [actor for bundle in plan.bundles() for actor in bundle.actors]
        assert sorted(actors) == sorted((role.name, number) for role in plan.roles for number in range(role.count))


def test_several_references_are_counted():
    assert plan_of("reference.num_workers=3").role("reference").count == 3


def test_a_run_without_learners_needs_less():
    plan = plan_of().only("data", "rollout", "reward")
    assert [role.name for role in plan.roles] == ["data", "rollout", "reward"]
    assert plan.role("learner") is None
    assert plan.needed()["CPU"] < plan_of().needed()["CPU"]
