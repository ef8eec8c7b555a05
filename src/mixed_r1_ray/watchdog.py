"""Looks at every wait of the driver: a lost node ends it, and one that lasts is told with where every actor is."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from pathlib import Path

import ray

from mixed_r1_ray.actors import Actors
from mixed_r1_ray.config import Config
from mixed_r1_ray.remote import NodeLost
from mixed_r1_ray.runtime import atomic
from mixed_r1_ray.whereabouts import ask, folder_of

NODES_EVERY_S = 5.0
SILENT = "no answer: stopped, in native code, or out of reach"


class Watchdog:
    """`look` is for `remote.watched`."""

    def __init__(self, actors: Actors, config: Config, warn: Callable[[str], None]):
        self.actors, self.config, self.warn = actors, config, warn
        self._waited, self._told = 0.0, False  # of the wait at hand
        self._next_nodes = 0.0

    def look(self, what: str, waited_s: float, deadline_s: float) -> None:
        """Raises NodeLost where one of the run's nodes is gone."""
        if time.monotonic() >= self._next_nodes:
            self._next_nodes = time.monotonic() + NODES_EVERY_S
            self._find_lost_nodes()
        if waited_s < self._waited:
            self._told = False
        self._waited = waited_s
        if not self._told and waited_s >= min(self.config.cluster.stall_s, deadline_s / 2):
            self._told = True
            self._tell(what, waited_s, deadline_s)

    def _find_lost_nodes(self) -> None:
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        placement = self.actors.placement
        lost = {placement.nodes[seat].name for seat in placement.seats if placement.nodes[seat].ray_id not in alive}
        if lost:
            raise NodeLost(f"node {', '.join(sorted(lost))} is lost, with all actors on it")

    def _tell(self, what: str, waited_s: float, deadline_s: float) -> None:
        """A line an actor to the terminal, all stacks into a file of the run."""
        folder = folder_of(self.config)
        said = ask(folder, self.actors.names())
        processes = _processes()
        head = f"nothing for {waited_s:.0f} s (deadline {deadline_s:.0f} s) of: {what}"
        lines = [f"  {name}: {_process(processes.get(name))}{_first_line(answer)}" for name, answer in said.items()]
        own = "".join(traceback.format_stack())
        stacks = [f"== driver\n{own}", *(f"== {name}\n{answer or SILENT}" for name, answer in said.items())]
        file = folder / f"{time.strftime('%Y%m%d-%H%M%S')}.txt"
        atomic.write_text(file, "\n".join([head, *lines, "", *stacks]))
        self.warn("\n".join([head, *lines, f"  stacks: {file}"]))


def _processes() -> dict[str, dict]:
    """What Ray knows of its actors, by name. Its public listing wants the dashboard, which a local run does without."""
    from ray._private.state import actors

    return {entry["Name"]: entry for entry in actors().values() if entry["Name"]}


def _process(entry: dict | None) -> str:
    if entry is None:
        return "unknown to Ray; "
    address, pid = entry["Address"]["IPAddress"], entry["Pid"]
    stopped = " is stopped (SIGSTOP)" if address == ray.util.get_node_ip_address() and _stopped(pid) else ""
    return f"{entry['State'].lower()}, process {pid} on {address}{stopped}; "


def _stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except (OSError, IndexError):
        return False


def _first_line(answer: str | None) -> str:
    return SILENT if answer is None else answer.splitlines()[0]
