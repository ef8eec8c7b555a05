"""A placement, its memory and its step time as tables for a person to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table

from .memory_plan import Load
from .placement import Placement
from .scale.hardware import GIB
from .scale.memory import Footprint


def placement_table(placement: Placement, prints: Mapping[str, Footprint]) -> Table:
    """Who goes where, with the GiB of each actor; nodes that get the same share a line."""
    columns = ("node", "actors", "number", "CPUs each", "GPUs each", "GiB on each GPU", "GiB on the host")
    table = Table(*columns, title="Placement plan", title_justify="left")
    for nodes, counts in _alike(placement):
        table.add_section()
        for role in placement.plan.roles:
            if counts.get(role.name):
                footprint = prints.get(role.name, Footprint())
                sizes = (_breakdown(footprint.device), _breakdown(footprint.host))
                number = f"{counts[role.name]}" + (f" x {len(nodes)} nodes" if len(nodes) > 1 else "")
                table.add_row(_span(nodes, placement), role.name, number, f"{role.cpus:g}", f"{role.gpus:g}", *sizes)
    needed, actors = placement.plan.needed(), sum(role.count for role in placement.plan.roles)
    table.add_section()
    table.add_row("in all", "", str(actors), f"{needed['CPU']:g}", f"{needed['GPU']:g}")
    return table


def memory_table(loads: Sequence[Load]) -> Table:
    """The fullest places against what they have."""
    table = Table("place", "GiB at the most", "GiB there", "", title="Memory", title_justify="left")
    for load in loads:
        verdict = "" if load.room is None else "fits" if load.fits else "may not fit" if load.certain.fits else "cannot fit"
        there = "unknown" if load.room is None else f"{load.room / GIB:.1f}"
        table.add_row(load.place, f"{load.total / GIB:.1f}", there, verdict)
    return table


def _alike(placement: Placement) -> Iterator[tuple[list[int], dict[str, int]]]:
    """Nodes with the same actors, and how many of each role every one of them gets."""
    counters = {role.name: placement.nodes_of(role.name) for role in placement.plan.roles}
    groups: dict[tuple[int, ...], list[int]] = {}
    for index in range(len(placement.nodes)):
        groups.setdefault(tuple(counter[index] for counter in counters.values()), []).append(index)
    for counts, nodes in groups.items():
        if any(counts):
            yield nodes, dict(zip(counters, counts, strict=True))


def _span(nodes: Sequence[int], placement: Placement) -> str:
    first, last = placement.nodes[nodes[0]].name, placement.nodes[nodes[-1]].name
    return first if len(nodes) == 1 else f"{first} … {last}"


def _breakdown(parts: Mapping[str, float]) -> str:
    if not parts:
        return ""
    terms = " + ".join(f"{part} {size / GIB:.1f}" for part, size in parts.items())
    return f"{terms} = {sum(parts.values()) / GIB:.1f}" if len(parts) > 1 else terms
