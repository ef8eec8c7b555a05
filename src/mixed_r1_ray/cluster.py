"""Joins or starts the Ray cluster, and checks that it can hold the run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import ray

from mixed_r1_ray.cluster_plan import make_plan
from mixed_r1_ray.config import Config
from mixed_r1_ray.environment import cluster_address, joining
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.idle_gpus import idle_gpus
from mixed_r1_ray.interrupt import StopRequest
from mixed_r1_ray.memory_plan import check_memory
from mixed_r1_ray.placement import Node, Placement, place
from mixed_r1_ray.scale.hardware import DEVICES, GIB


@contextmanager
def connected(config: Config, say: Callable[[str], None], roles: Sequence[str] = ()) -> Iterator[Placement]:
    """A connection to Ray for the length of the block, and where on it the run's actors go.

    Raises UserError where the cluster is too small.

    roles: all that will be started, by name; a training run's by default. A cluster that was started here ends with the
    block, and with it every actor.
    """
    address = cluster_address(config)
    say(f"joining the Ray cluster at {address}" if address else "starting Ray on this machine")
    # An exception in the middle of ray.init can be lost in a callback, leave processes behind or crash at exit.
    with StopRequest(say, "stopping as soon as Ray answers") as stop:
        if address:
            ray.init(**joining(address), log_to_driver=config.cluster.actor_logs, logging_level=logging.ERROR)
        else:
            _start_here(config)
    try:
        stop.raise_if_requested()
        yield preflight(config, say, roles)
    finally:
        ray.shutdown()


def preflight(config: Config, say: Callable[[str], None], roles: Sequence[str] = ()) -> Placement:
    """The run's plan on the nodes that Ray has. Raises UserError for what they cannot hold, says what they may not.

    roles: all that will be started, by name; a training run's by default.
    """
    nodes = ray_nodes(config)
    if config.cluster.nodes and len(nodes) < config.cluster.nodes:
        raise UserError(f"cluster.nodes={config.cluster.nodes}, but Ray has {len(nodes)}; wait for the others to join")
    plan = make_plan(config)
    placement = place(plan.only(*roles) if roles else plan, nodes)
    if len(nodes) > 1:
        say(f"placing {placement}")
    for doubt in (idle_gpus(config, placement), *check_memory(config, placement)):
        if doubt is not None:
            say(doubt)
    return placement


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
