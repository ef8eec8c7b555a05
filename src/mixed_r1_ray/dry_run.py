"""`dry_run=true`: what would run, where, in how much memory and time, without starting anything."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console

from .cluster_plan import Plan, make_plan
from .config import Config
from .config_load import config_to_yaml
from .environment import cluster_address
from .errors import UserError
from .memory_plan import judge, loads
from .placement import Node, Placement, gpu_bytes, place, stated_nodes
from .plan_table import memory_table, placement_table
from .redaction import redact
from .scale.architecture import read_architecture
from .scale.memory import footprints


def dry_run(config: Config) -> None:
    """Prints the configuration and the plan for the stated cluster, or for this machine where none is stated.

    Raises UserError where the stated cluster cannot hold it.
    """
    console = Console(highlight=False, soft_wrap=True)
    console.print(redact(config_to_yaml(config)), markup=False)
    plan, nodes = make_plan(config), stated_nodes(config)
    if nodes:
        show(console, config, place(plan, nodes))
        return
    show(console, config, place(plan, [_as_large_as_needed(plan, config)]))
    console.print(_verdict_here(config, plan), markup=False)


def show(console: Console, config: Config, placement: Placement) -> None:
    """All tables. Raises UserError where the memory cannot do."""
    architecture = read_architecture(config.model.path)
    if architecture is None:
        console.print(placement_table(placement, {}))
        console.print(f"No memory or time estimate: the shape of {config.model.path} is not known here.", markup=False)
        return
    places = loads(config, architecture, placement)
    console.print(placement_table(placement, footprints(config, architecture, gpu_bytes(config))))
    console.print(memory_table(places))
    for doubt in judge(places):
        console.print(doubt, markup=False)


def _as_large_as_needed(plan: Plan, config: Config) -> Node:
    needed = plan.needed()
    return Node("one node", needed["CPU"], needed["GPU"], gpu_bytes=gpu_bytes(config))


def _verdict_here(config: Config, plan: Plan) -> str:
    address = cluster_address(config)
    if address:
        return f"The cluster at {address} was not asked; a real run compares these sums with it."
    cpus = config.cluster.num_cpus or os.cpu_count() or 1
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    try:
        place(plan, [Node("this machine", cpus, gpus)])
    except UserError as error:
        return f"This machine alone cannot hold it: {error}"
    return f"This machine alone can hold it ({cpus} CPUs, {gpus} GPUs)."
