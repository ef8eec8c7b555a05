"""Joins or starts the Ray cluster, checks that it can hold the run, and starts the run's actors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from mixed_r1_ray.cluster_plan import Plan, Role, make_plan
from mixed_r1_ray.config import Config
from mixed_r1_ray.environment import cluster_address
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.interrupt import StopRequest
from mixed_r1_ray.remote import fetch


@contextmanager
def connected(config: Config, say: Callable[[str], None], roles: Sequence[str] = ()) -> Iterator[Plan]:
    """A connection to Ray for the length of the block. Raises UserError where the cluster is too small.

    roles: all that will be started, by name; a training run's by default. A cluster that was started here ends
    with the block, and with it every actor.
    """
    address = cluster_address(config)
    say(f"joining the Ray cluster at {address}" if address else "starting Ray on this machine")
    # An exception in the middle of ray.init can be lost in a callback, leave processes behind or crash at exit.
    with StopRequest(say, "stopping as soon as Ray answers") as stop:
        if address:
            ray.init(address=address, log_to_driver=config.cluster.actor_logs, logging_level=logging.ERROR)
        else:
            _start_here(config)
    try:
        stop.raise_if_requested()
        plan = make_plan(config).only(*roles) if roles else make_plan(config)
        plan.check(ray.cluster_resources())
        yield plan
    finally:
        ray.shutdown()


def _start_here(config: Config) -> None:
    store_gib = config.cluster.object_store_gib
    try:
        ray.init(
            address="local",
            num_cpus=config.cluster.num_cpus,
            object_store_memory=int(store_gib * 2**30),
            include_dashboard=False,
            log_to_driver=config.cluster.actor_logs,
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
        )
    except ValueError as error:
        raise UserError(f"Ray does not start here with cluster.object_store_gib={store_gib:g}: {error}") from None


@dataclass(frozen=True)
class Actors:
    """Handles of a run's actors. `learners` and `reference` answer only after `start`."""

    data: list
    rollout: list
    reward: list
    learner: list
    reference: list


def create_actors(config: Config, plan: Plan, data_worker: type, *data: object) -> Actors:
    """Asks Ray for every actor of the plan at once; they start side by side.

    data_worker: the class of the data actors, and `data` what they are made with beside the configuration.
    """
    from mixed_r1_ray.policy.reference import ReferenceWorker
    from mixed_r1_ray.policy.worker import LearnerWorker
    from mixed_r1_ray.rewards.worker import RewardWorker
    from mixed_r1_ray.rollout.worker import RolloutWorker

    def pool(actor_class, name: str, *arguments) -> list:
        role: Role | None = plan.role(name)
        if role is None:
            return []
        options = {"num_cpus": role.cpus, "num_gpus": role.gpus}
        return [actor_class.options(**options).remote(*arguments) for _ in range(role.count)]

    return Actors(
        data=pool(data_worker, "data", config, *data),
        rollout=pool(RolloutWorker, "rollout", config),
        reward=pool(RewardWorker, "reward", config),
        learner=pool(LearnerWorker, "learner", config),
        reference=pool(ReferenceWorker, "reference", config),
    )


def await_ready(actors: Actors, config: Config, progress: Callable[[str], None]) -> None:
    """Returns when every engine, reference and reward worker answers. Raises, naming the first that does not."""
    waits = [
        ("reward", actors.reward, config.rollout.start_timeout_s),
        ("reference", actors.reference, config.learner.start_timeout_s),
        ("rollout", actors.rollout, config.rollout.start_timeout_s),
    ]
    for name, workers, deadline_s in waits:
        for number, worker in enumerate(workers):
            progress(f"starting {name}[{number}]")
            fetch(worker.ready.remote(), what=f"{name}[{number}] starting", deadline_s=deadline_s)
