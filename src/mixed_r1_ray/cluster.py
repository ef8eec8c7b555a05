"""Joins or starts the Ray cluster, checks that it can hold the run, and starts the run's actors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from mixed_r1_ray.cluster_plan import Role, make_plan
from mixed_r1_ray.config import Config
from mixed_r1_ray.environment import cluster_address
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.interrupt import StopRequest
from mixed_r1_ray.memory_plan import check_memory
from mixed_r1_ray.placement import Node, Placement, place
from mixed_r1_ray.remote import fetch
from mixed_r1_ray.scale.hardware import DEVICES, GIB

RESERVE_DEADLINE_S = 60.0
LEAST_CPUS = 0.001  # Ray reserves no bundle of nothing


@contextmanager
def connected(config: Config, say: Callable[[str], None]) -> Iterator[Placement]:
    """A connection to Ray for the length of the block, and where on it the run's actors go.

    Raises UserError where the cluster is too small.

    A cluster that was started here ends with the block, and with it every actor.
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
        nodes = ray_nodes(config)
        if config.cluster.nodes and len(nodes) < config.cluster.nodes:
            raise UserError(f"cluster.nodes={config.cluster.nodes}, but Ray has {len(nodes)}; wait for the others to join")
        placement = place(make_plan(config), nodes)
        for doubt in check_memory(config, placement):
            say(doubt)
        yield placement
    finally:
        ray.shutdown()


def ray_nodes(config: Config) -> tuple[Node, ...]:
    """The nodes of the cluster that this process is connected to, by name."""
    return tuple(sorted((_node(node, config) for node in ray.nodes() if node["Alive"]), key=lambda node: node.name))


def _node(node: dict, config: Config) -> Node:
    resources, given = node["Resources"], config.cluster.gpu_memory_gib
    kinds = [name.removeprefix("accelerator_type:") for name in resources if name.startswith("accelerator_type:")]
    known = DEVICES.get(kinds[0]) if kinds else None
    return Node(
        name=f"{node['NodeManagerAddress']}-{node['NodeID'][:6]}",
        cpus=resources.get("CPU", 0.0),
        gpus=resources.get("GPU", 0.0),
        gpu_bytes=given * GIB if given else known and known.memory,
        host_bytes=resources.get("memory"),
        object_store_bytes=resources.get("object_store_memory"),
        ray_id=node["NodeID"],
    )


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


def reserve(placement: Placement):
    """The plan's bundles as one placement group, each on its node, all or none.

    Raises UserError where that is not granted in time, because something else holds what it needs.
    """
    from ray.util.placement_group import NODE_ID_LABEL_KEY, placement_group

    bundles = [
        {name: amount for name, amount in (("CPU", bundle.cpus or LEAST_CPUS), ("GPU", bundle.gpus)) if amount}
        for bundle in placement.bundles
    ]
    nodes = [{NODE_ID_LABEL_KEY: placement.nodes[seat].ray_id} for seat in placement.seats]
    group = placement_group(bundles, bundle_label_selector=nodes)
    if not group.wait(RESERVE_DEADLINE_S):
        free, needed = ray.available_resources(), placement.plan.needed()
        terms = ", ".join(f"{needed[name]:g} {name}s needed, {free.get(name, 0):g} free" for name in needed)
        raise UserError(f"the cluster did not grant this run's actors within {RESERVE_DEADLINE_S:g} s: {terms} on all nodes")
    return group


def create_actors(config: Config, placement: Placement, splits: dict[str, str]) -> Actors:
    """Reserves all that the plan asks for, then asks Ray for every actor at once; they start side by side."""
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    from mixed_r1_ray.data.worker import DataWorker
    from mixed_r1_ray.policy.reference import ReferenceWorker
    from mixed_r1_ray.policy.worker import LearnerWorker
    from mixed_r1_ray.rewards.worker import RewardWorker
    from mixed_r1_ray.rollout.worker import RolloutWorker

    group = reserve(placement)

    def actor(actor_class, role: Role, number: int, arguments: tuple):
        seat = PlacementGroupSchedulingStrategy(group, placement.bundle_of(role.name, number))
        options = {"num_cpus": role.cpus, "num_gpus": role.gpus, "scheduling_strategy": seat}
        return actor_class.options(**options).remote(*arguments)

    def pool(actor_class, name: str, *arguments) -> list:
        role = placement.plan.role(name)
        return [actor(actor_class, role, number, arguments) for number in range(role.count)] if role else []

    return Actors(
        data=pool(DataWorker, "data", config, splits),
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
