"""A placement, its memory and its step time as tables for a person to read, in 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table

from .memory_plan import Load
from .placement import Placement
from .scale.hardware import GIB
from .scale.memory import Footprint
from .scale.step_time import Phase, StepModel


def placement_table(placement: Placement, prints: Mapping[str, Footprint]) -> Table:
    """Who goes where, with the GiB of each actor; nodes that get the same share a line, and what stays idle has one."""
    table = Table(title="Placement plan: CPUs, GPUs and GiB are of each actor", title_justify="left")
    table.add_column("node")
    table.add_column("actors")
    for column in ("a node", "CPUs", "GPUs", "GiB GPU", "GiB host"):
        table.add_column(column, justify="right")
    for nodes, counts, idle in _alike(placement):
        table.add_section()
        node = _span(nodes, placement)
        for role in placement.plan.roles:
            if counts.get(role.name):
                footprint = prints.get(role.name, Footprint())
                sizes = (_gib(footprint.device), _gib(footprint.host))
                table.add_row(node, role.name, str(counts[role.name]), f"{role.cpus:g}", f"{role.gpus:g}", *sizes)
        if idle:
            table.add_row(node, "idle", "", "", f"{idle:g}")
    needed, actors = placement.plan.needed(), sum(role.count for role in placement.plan.roles)
    table.add_section()
    table.add_row("in all", "", str(actors), f"{needed['CPU']:g}", f"{needed['GPU']:g}")
    return table


def parts_table(prints: Mapping[str, Footprint]) -> Table:
    """What the memory of one actor of each role is made of."""
    table = Table(title="Memory of an actor by part, GiB", title_justify="left")
    table.add_column("actor")
    table.add_column("part")
    for column in ("on its GPU", "on its host"):
        table.add_column(column, justify="right")
    for role, footprint in prints.items():
        table.add_section()
        for part in {**footprint.device, **footprint.host}:
            sizes = (footprint.device.get(part), footprint.host.get(part))
            table.add_row(role, part, *("" if size is None else f"{size / GIB:.1f}" for size in sizes))
    return table


def memory_table(loads: Sequence[Load]) -> Table:
    """The fullest places against what they have."""
    table = Table(title="Memory of the fullest places, GiB", title_justify="left")
    table.add_column("place")
    for column in ("at the most", "there"):
        table.add_column(column, justify="right")
    table.add_column("")
    for load in loads:
        there = "unknown" if load.room is None else f"{load.room / GIB:.1f}"
        table.add_row(load.place.replace(" while ", "\nwhile "), f"{load.total / GIB:.1f}", there, _verdict(load))
    return table


def _verdict(load: Load) -> str:
    if load.room is None:
        return ""
    if load.fits:
        return "fits"
    return "may not fit" if load.certain.fits else "cannot fit"


def time_table(model: StepModel) -> Table:
    """What a step waits for, phase by phase, and the work behind it."""
    table = Table(title=f"Step time on {model.device.name}s, estimated from their peak rates", title_justify="left")
    table.add_column("phase")
    table.add_column("seconds", justify="right")
    table.add_column("bound by")
    table.add_column("work, seconds")
    for phase in model.phases():
        table.add_row(phase.name, f"{phase.seconds:.1f}", phase.bound if phase.seconds else "hidden", _work(phase))
    work, seconds = model.work, model.seconds()
    table.add_section()
    sizes = f"{work.samples} samples\nprompts of {work.prompt_tokens} tokens\nresponses of {work.response_tokens}"
    table.add_row("step", f"{seconds:.1f}", f"{work.samples / seconds:.1f} samples/s", sizes)
    return table


def _work(phase: Phase) -> str:
    parts = sorted(phase.busy.items(), key=lambda part: -part[1])
    return "\n".join(f"{name} {seconds:.1f}" for name, seconds in parts if seconds >= 0.05)


def _alike(placement: Placement) -> Iterator[tuple[list[int], dict[str, int], float]]:
    """Nodes with the same actors and idle GPUs; how many of each role, and of these GPUs, every one of them has."""
    counters = {role.name: placement.nodes_of(role.name) for role in placement.plan.roles}
    groups: dict[tuple[float, ...], list[int]] = {}
    for index, idle in enumerate(placement.idle_gpus):
        groups.setdefault((idle, *(counter[index] for counter in counters.values())), []).append(index)
    for (idle, *counts), nodes in groups.items():
        if any(counts) or idle:
            yield nodes, dict(zip(counters, counts, strict=True)), idle


def _span(nodes: Sequence[int], placement: Placement) -> str:
    """`node 3`, or `node 0 to 7 (6)` of those nodes between the first and the last."""
    first, last = placement.nodes[nodes[0]].name, placement.nodes[nodes[-1]].name
    if len(nodes) == 1:
        return first
    missing = f" ({len(nodes)})" if nodes[-1] - nodes[0] + 1 != len(nodes) else ""
    return f"{first} to {last.rpartition(' ')[2]}{missing}"


def _gib(parts: Mapping[str, float]) -> str:
    return f"{sum(parts.values()) / GIB:.1f}" if parts else ""
