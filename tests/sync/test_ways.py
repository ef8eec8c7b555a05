"""Which way weights take."""

from __future__ import annotations

import pytest

from mixed_r1_ray.config_load import load_config
from mixed_r1_ray.sync.ways import chosen_way

GPUS = ("rollout.gpus_per_worker=1", "learner.gpus_per_worker=1")
SHARED = (*GPUS, "cluster.share_gpus=true")


@pytest.mark.parametrize(
    ("words", "way"),
    [
        ((), "object_store"),
        (GPUS, "broadcast"),
        (GPUS[:1], "object_store"),
        (GPUS[1:], "object_store"),
        ((*GPUS, "algo.max_staleness=1", "algo.rollout_correction=token"), "object_store"),
        (SHARED, "ipc"),
        ((*SHARED, "rollout.num_workers=2"), "object_store"),
        ((*SHARED, "rollout.num_workers=2", "learner.num_workers=2"), "ipc"),
        ((*GPUS, "rollout.weight_transfer=object_store"), "object_store"),
    ],
)
def test_the_fastest_way_that_the_devices_allow(words, way):
    assert chosen_way(load_config(["conf=quickstart", *words])) == way
