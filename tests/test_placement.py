"""Which node each actor gets: packed, spread, shared, over several GPUs; and what is refused."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixed_r1_ray.cluster_plan import make_plan
from mixed_r1_ray.config_load import load_config
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.placement import Node, fitting, place, stated_nodes


def nodes(count: int, gpus: float = 8, cpus: float = 64) -> list[Node]:
    return [Node(f"n{number}", cpus, gpus) for number in range(count)]


def placed(where: list[Node], *words: str, conf: str = "internvl_8b"):
    return place(make_plan(load_config([f"conf={conf}", *words])), where)


def test_packed_learners_share_a_node_and_engines_leave_it_whole():
    placement = placed(nodes(2), "rollout.num_workers=7", "learner.num_workers=8")
    (home,) = placement.nodes_of("learner")
    assert placement.nodes_of("learner")[home] == 8
    assert placement.nodes_of("rollout") == {1 - home: 7} and placement.nodes_of("reference") == {1 - home: 1}


def test_spread_learners_are_even_over_nodes():
    placement = placed(nodes(4), "learner.num_workers=8", "learner.placement=spread", "rollout.num_workers=4")
    assert placement.nodes_of("learner") == {0: 2, 1: 2, 2: 2, 3: 2}
    assert max(placement.nodes_of("rollout").values()) == 1


def test_an_engine_over_several_gpus_stays_inside_a_node():
    placement = placed(nodes(3, gpus=6), "rollout.num_workers=3", "rollout.gpus_per_worker=4", "learner.num_workers=5")
    assert placement.nodes_of("rollout") == {0: 1, 1: 1, 2: 1}
    with pytest.raises(UserError) as caught:
        placed(nodes(3, gpus=6), "rollout.num_workers=4", "rollout.gpus_per_worker=4", "learner.num_workers=1")
    assert "inside a node: 3 nodes x (6 // 4) = room for 3, 4 needed" in str(caught.value)


def test_too_few_gpus_in_all_are_refused_with_the_sum():
    with pytest.raises(UserError) as caught:
        placed(nodes(2), "rollout.num_workers=8", "rollout.gpus_per_worker=2", "learner.num_workers=7")
    assert "rollout 8 x 2 + learner 7 x 1 + reference 1 x 1 = 24 GPUs needed, 16 available" in str(caught.value)


def test_an_actor_that_fits_no_node_is_named_with_what_is_left():
    with pytest.raises(UserError) as caught:
        placed(nodes(4, gpus=0, cpus=1), "rollout.cpus_per_worker=1.5", conf="quickstart")
    assert str(caught.value).startswith("rollout[0] needs 0 GPUs and 1.5 CPUs on one node; left on the nodes when ")
    assert "lower rollout.cpus_per_worker" in str(caught.value)


def test_those_that_share_a_gpu_are_on_one_node():
    placement = placed(nodes(2, gpus=2), "rollout.num_workers=3", "learner.num_workers=3", conf="debug")
    for number in range(3):
        assert placement.bundle_of("rollout", number) == placement.bundle_of("learner", number)
    assert Counter(placement.seats[placement.bundle_of("learner", n)] for n in range(3)) == {0: 2, 1: 1}


def test_workers_without_gpus_are_spread():
    placement = placed(nodes(4), "rollout.num_workers=20", "learner.num_workers=8", "data.num_workers=8")
    assert placement.nodes_of("data") == {0: 2, 1: 2, 2: 2, 3: 2}
    assert max(placement.nodes_of("reward").values()) == 1


def test_a_placement_says_who_is_where():
    text = str(placed(nodes(3, gpus=4), "data.num_workers=1", "reward.num_workers=1", "learner.num_workers=4"))
    assert text == "n0: 4 learner; n1: 3 rollout, 1 reference; n2: 1 data, 1 reward"


def test_without_gpus_engines_of_three_nodes_are_apart():
    three = nodes(3, gpus=0, cpus=2)
    words = ["rollout.num_workers=2", "learner.num_workers=2", "reward.num_workers=3"]
    placement = placed(three, *words, conf="quickstart")
    assert max(placement.nodes_of("rollout").values()) == 1 and len(placement.nodes_of("learner")) == 1
    assert len(placement.nodes_of("reward")) == 3


@given(
    engines=st.integers(1, 9),
    learners=st.integers(1, 9),
    width=st.integers(1, 4),
    spread=st.booleans(),
    shapes=st.lists(st.tuples(st.integers(0, 8), st.integers(1, 64)), min_size=1, max_size=5),
)
def test_no_node_is_given_more_than_it_has(engines, learners, width, spread, shapes):
    words = [f"rollout.num_workers={engines}", f"rollout.gpus_per_worker={width}", f"learner.num_workers={learners}"]
    words.append(f"learner.placement={'spread' if spread else 'pack'}")
    there = [Node(f"n{number}", cpus, gpus) for number, (gpus, cpus) in enumerate(shapes)]
    try:
        placement = placed(there, *words)
    except UserError:
        return
    for index, node in enumerate(there):
        mine = [bundle for bundle, seat in zip(placement.bundles, placement.seats, strict=True) if seat == index]
        assert sum(bundle.gpus for bundle in mine) <= node.gpus
        assert sum(bundle.cpus for bundle in mine) <= node.cpus + 1e-6


def test_stated_nodes_are_those_of_the_configuration():
    config = load_config(["conf=internvl_8b", "cluster.nodes=3", "cluster.gpus_per_node=4", "cluster.gpu=H200"])
    assert [node.gpus for node in stated_nodes(config)] == [4, 4, 4]
    assert stated_nodes(config)[0].gpu_bytes == 140 * 2**30
    assert stated_nodes(load_config(["conf=internvl_8b"])) == ()


@given(engines=st.integers(1, 9), learners=st.integers(1, 9), where=st.integers(1, 3))
def test_a_run_is_made_to_fit_what_is_left_and_loses_no_more_than_it_must(engines, learners, where):
    words = ("conf=internvl_8b", f"rollout.num_workers={engines}", f"learner.num_workers={learners}")
    asked, left = load_config(list(words)), nodes(where, gpus=4)
    found = fitting(asked, left)
    place(make_plan(found), left)
    counts = {role: getattr(found, role).num_workers for role in ("rollout", "learner", "reference", "reward", "data")}
    assert min(counts.values()) >= 1 and counts["rollout"] <= engines and counts["learner"] <= learners
    gpus = counts["rollout"] * found.rollout.gpus_per_worker + counts["learner"] + counts["reference"]
    if counts["rollout"] < engines or counts["learner"] < learners:
        assert gpus > 4 * where - max(1, found.rollout.gpus_per_worker)
    else:
        assert found == asked


def test_a_run_of_which_not_even_one_of_each_fits_is_refused_with_the_sum():
    with pytest.raises(UserError, match="GPUs needed, 2 available"):
        fitting(load_config(["conf=internvl_8b"]), nodes(1, gpus=2))
