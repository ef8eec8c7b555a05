"""A Ray cluster and real actors that the tests of this folder share; all end with the folder's last test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
import ray
from tied_embeddings import tie_embeddings

from mixed_r1_ray.config import Config
from mixed_r1_ray.environment import prepare_environment
from mixed_r1_ray.policy.group import LearnerGroup
from mixed_r1_ray.policy.worker import LearnerWorker

from .real_parts import RealParts


MOST_AT_ONCE = 2  # parts of 2 GiB each


@pytest.fixture(scope="package")
def cluster() -> Iterator[None]:
    prepare_environment(Config())
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=150 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="package")
def start_learners(cluster) -> Callable[[Config], LearnerGroup]:
    """Starts `learner.num_workers` ranks."""

    def start(config: Config) -> LearnerGroup:
        workers = [LearnerWorker.options(num_cpus=0).remote(config) for _ in range(config.learner.num_workers)]
        learners = LearnerGroup(workers, config)
        learners.start()
        return learners

    return start


@pytest.fixture(scope="package")
def checkpoints(tiny_checkpoints, tmp_path_factory) -> dict[str, str]:
    """By family; Qwen2.5-VL with one matrix for input and output embeddings, as its 3B model has."""
    folder = str(tmp_path_factory.mktemp("tied_qwen2_5_vl"))
    tie_embeddings(tiny_checkpoints["qwen2_5_vl"], folder)
    return {"internvl": tiny_checkpoints["internvl"], "qwen2_5_vl": folder}


@pytest.fixture(scope="package")
def start_parts(start_learners, checkpoints, tmp_path_factory) -> Callable[..., RealParts]:
    """One engine and two learner ranks of a family; each started once, and given back at its start."""
    started: dict[tuple, RealParts] = {}

    def start(family: str, settings: Mapping[str, object] = MappingProxyType({})) -> RealParts:
        key = (family, *sorted(settings.items()))
        if key not in started:
            if len(started) == MOST_AT_ONCE:
                started.pop(next(iter(started))).end()
            folder: Path = tmp_path_factory.mktemp("start")
            started[key] = RealParts.start(checkpoints[family], settings, start_learners, folder)
        started[key].begin_anew()
        return started[key]

    return start
