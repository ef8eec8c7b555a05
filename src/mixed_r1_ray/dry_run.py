"""`dry_run=true`: what would run, where, in how much memory and time, and what speaks against it. Starts nothing."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import yaml
from rich.console import Console

from .before_start import look
from .cluster_plan import Plan, make_plan
from .config import Config
from .config_load import config_to_yaml
from .environment import cluster_address
from .errors import UserError
from .estimate import step_model
from .idle_gpus import idle_gpus
from .memory_plan import judge, loads, not_estimated
from .placement import Node, Placement, gpu_bytes, place, stated_nodes
from .plan_table import memory_table, parts_table, placement_table, time_table
from .redaction import redact
from .scale.architecture import UnknownShape, read_architecture
from .scale.memory import footprints

YAML_COLUMNS = 64  # PyYAML breaks a line after the word that passes them


def dry_run(config: Config) -> None:
    """Prints the configuration and the plan for the stated cluster, or for this machine where none is stated.

    Raises UserError with all that a run would be refused for: by what it looks at before it starts, and by the cluster.
    """
    console = Console(highlight=False, soft_wrap=True)
    settings = yaml.safe_load(config_to_yaml(redact(config)))
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=YAML_COLUMNS)
    console.print(text, markup=False)
    problems, notes = look(config)
    for note in notes:
        _say(console, note)
    try:
        _plan(console, config)
    except UserError as error:
        problems.append(f"{error}")
    if problems:
        raise UserError("\n".join(problems))


def _plan(console: Console, config: Config) -> None:
    plan, nodes = make_plan(config), stated_nodes(config)
    if nodes:
        show(console, config, place(plan, nodes))
        return
    show(console, config, place(plan, [_as_large_as_needed(plan, config)]))
    _say(console, _verdict_here(config, plan))


def show(console: Console, config: Config, placement: Placement) -> None:
    """All tables and what they mean. Raises UserError where the memory cannot do."""
    try:
        architecture = read_architecture(config.model.path)
    except UnknownShape as why:
        console.print(placement_table(placement, {}))
        _say(console, idle_gpus(config, placement))
        _say(console, not_estimated(why))
        return
    prints, places = footprints(config, architecture, gpu_bytes(config)), loads(config, architecture, placement)
    console.print(placement_table(placement, prints))
    _say(console, idle_gpus(config, placement))
    console.print(parts_table(prints))
    console.print(memory_table(places))
    for doubt in judge(places):
        _say(console, doubt)
    if config.rollout.gpus_per_worker and config.learner.gpus_per_worker:
        console.print(time_table(step_model(config, architecture, placement)))


def _say(console: Console, sentence: str | None) -> None:
    """Broken between words, and never inside one: paths stay whole."""
    if sentence is not None:
        wrapped = textwrap.fill(sentence, console.width, break_long_words=False, break_on_hyphens=False)
        console.print(wrapped, markup=False)


def _as_large_as_needed(plan: Plan, config: Config) -> Node:
    needed = plan.needed()
    return Node("one node", needed["CPU"], needed["GPU"], gpu_bytes=gpu_bytes(config))


def _verdict_here(config: Config, plan: Plan) -> str:
    """What this machine, or the cluster to join, is to the plan. Raises UserError where this machine is too small."""
    address = cluster_address(config)
    if address:
        return f"The cluster at {address} was not asked; a real run compares these sums with it."
    cpus = config.cluster.num_cpus or os.cpu_count() or 1
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    try:
        placement = place(plan, [Node("this machine", cpus, gpus)])
    except UserError as error:
        raise UserError(f"this machine alone cannot hold it: {error}; cluster.nodes states another cluster") from None
    idle = idle_gpus(config, placement)
    return f"This machine alone can hold it ({cpus} CPUs, {gpus} GPUs)." + (f" {idle}" if idle else "")
