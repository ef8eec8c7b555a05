"""A Ray cluster and real actors that the tests of this folder share; all end with the folder's last test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import ray

from mixed_r1_ray.config import Config
from mixed_r1_ray.environment import prepare_environment
from mixed_r1_ray.policy.group import LearnerGroup
from mixed_r1_ray.policy.worker import LearnerWorker


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
