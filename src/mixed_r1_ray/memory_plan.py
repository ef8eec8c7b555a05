"""Whether what a placement puts on each GPU and host fits there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .config import Config
from .errors import UserError
from .placement import Placement
from .scale.architecture import Architecture, UnknownShape, read_architecture
from .scale.hardware import GIB
from .scale.memory import DEVICE_RESERVE, Footprint, footprints, object_store_bytes

CERTAIN = ("weights", "gradients", "optimizer")  # exact; the other parts are upper estimates


@dataclass(frozen=True)
class Load:
    """Bytes that one place (a GPU, a host) holds, and its room for them; None where nobody said."""

    place: str
    parts: Mapping[tuple[str, str], float]  # (role, part) -> bytes
    room: float | None

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    @property
    def certain(self) -> Load:
        """Its exact parts alone."""
        return Load(self.place, {key: size for key, size in self.parts.items() if key[1] in CERTAIN}, self.room)

    @property
    def fits(self) -> bool:
        return self.room is None or self.total <= self.room and min(self.parts.values(), default=0) >= 0

    def __str__(self) -> str:
        terms = " + ".join(f"{role} {part} {size / GIB:.1f}" for (role, part), size in self.parts.items())
        return f"{self.place}: {terms} = {self.total / GIB:.1f} GiB, of {(self.room or 0) / GIB:.1f} GiB"


def check_memory(config: Config, placement: Placement) -> list[str]:
    """What may not fit, by upper estimates, or why nothing was estimated; nothing is refused for that.

    Raises UserError, with the addition, where the exact parts alone do not fit.
    """
    try:
        return judge(loads(config, read_architecture(config.model.path), placement))
    except UnknownShape as error:
        return [not_estimated(error)]


def not_estimated(why: UnknownShape) -> str:
    """The sentence that stands in place of tables."""
    return f"memory and time not estimated: {why}"


def judge(places: Sequence[Load]) -> list[str]:
    """Raises UserError for what cannot fit; returns a sentence for each place that may not."""
    for load in places:
        if not load.certain.fits:
            raise UserError(
                f"{load.certain}; take more learner.num_workers, a smaller model, or GPUs of more memory "
                "(cluster.gpu_memory_gib)"
            )
        if load.room is not None and load.parts.get(("rollout", "KV cache"), 0) < 0:
            raise UserError(
                f"{load}: nothing is left for the KV cache; raise rollout.gpu_memory_fraction or "
                "rollout.gpus_per_worker"
            )
    return [f"may not fit, at the most: {load}" for load in places if not load.fits]


def loads(config: Config, architecture: Architecture, placement: Placement) -> list[Load]:
    """Every kind of GPU, the fullest host, the fullest object store."""
    device_bytes = min((node.gpu_bytes for node in placement.nodes if node.gpu_bytes), default=0.0)
    prints = footprints(config, architecture, device_bytes)
    kinds = {tuple(name for name, _ in bundle.actors) for bundle in placement.bundles if bundle.gpus}
    room = device_bytes - DEVICE_RESERVE if device_bytes else None
    gpus = [
        Load(f"GPU of {_turn(kind, role)}", _parts(prints, {role: 1}, "device"), room)
        for kind in sorted(kinds)
        for role in kind
    ]
    return [*gpus, _fullest_host(prints, placement), _fullest_store(config, architecture, placement)]


def _turn(kind: tuple[str, ...], role: str) -> str:
    """Of those that share a GPU one is awake at a time."""
    others = " + ".join(name for name in kind if name != role)
    return f"{role} while {others} sleep" if others else role


def _parts(prints: Mapping[str, Footprint], counts: Mapping[str, int], where: str) -> dict[tuple[str, str], float]:
    return {
        (role, part): counts[role] * size
        for role, footprint in prints.items()
        if counts.get(role)
        for part, size in getattr(footprint, where).items()
    }


def _fullest_host(prints: Mapping[str, Footprint], placement: Placement) -> Load:
    counts = {role: placement.nodes_of(role) for role in prints}
    hosts = [
        Load("fullest host", _parts(prints, {role: counts[role][index] for role in prints}, "host"), node.host_bytes)
        for index, node in enumerate(placement.nodes)
    ]
    return max(hosts, key=lambda load: load.total)


def _fullest_store(config: Config, architecture: Architecture, placement: Placement) -> Load:
    stored = object_store_bytes(config, architecture, len(placement.nodes_of("data")))
    # Not `weights`: a store that is full spills to disk, so nothing here is a reason to refuse.
    parts = {("shared", part.replace("weights", "weight version")): size for part, size in stored.items()}
    sizes = [node.object_store_bytes for node in placement.nodes if node.object_store_bytes]
    return Load("fullest object store", parts, min(sizes, default=None))
