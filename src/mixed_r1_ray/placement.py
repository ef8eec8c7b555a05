"""Which bundle of actors goes to which node. The same for a cluster that is there and for one that is only stated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from .cluster_plan import TOLERANCE, Bundle, Plan, make_plan
from .config import Config
from .errors import UserError
from .scale.hardware import DEVICES, GIB

ROLES = ("rollout", "learner", "reference", "reward", "data")

@dataclass(frozen=True)
class Node:
    """What a node offers. Bytes are None where nobody said."""

    name: str
    cpus: float
    gpus: float
    gpu_bytes: float | None = None  # of one GPU
    host_bytes: float | None = None
    object_store_bytes: float | None = None
    ray_id: str = ""


@dataclass(frozen=True)
class Placement:
    """A plan with a node for each of its bundles: `seats[b]` is the index of bundle b's node."""

    plan: Plan
    nodes: tuple[Node, ...]
    bundles: tuple[Bundle, ...]
    seats: tuple[int, ...]

    def __str__(self) -> str:
        counters = {role.name: self.nodes_of(role.name) for role in self.plan.roles}
        seated = [
            ", ".join(f"{counter[index]} {role}" for role, counter in counters.items() if counter[index])
            for index in range(len(self.nodes))
        ]
        return "; ".join(f"{node.name}: {actors or 'none'}" for node, actors in zip(self.nodes, seated, strict=True))

    @property
    def idle_gpus(self) -> tuple[float, ...]:
        """Of each node, what no bundle takes."""
        taken = Counter()
        for bundle, seat in zip(self.bundles, self.seats, strict=True):
            taken[seat] += bundle.gpus
        return tuple(round(node.gpus - taken[index], 3) for index, node in enumerate(self.nodes))

    def bundle_of(self, role: str, number: int) -> int:
        """Index of the bundle that holds this actor."""
        return next(index for index, bundle in enumerate(self.bundles) if (role, number) in bundle.actors)

    def node_of(self, role: str, number: int) -> Node:
        """The node of this actor."""
        return self.nodes[self.seats[self.bundle_of(role, number)]]

    def nodes_of(self, role: str) -> Counter[int]:
        """Node index -> how many actors of the role it gets."""
        return Counter(
            seat
            for bundle, seat in zip(self.bundles, self.seats, strict=True)
            for name, _ in bundle.actors
            if name == role
        )


def stated_nodes(config: Config) -> tuple[Node, ...]:
    """The cluster that `cluster.nodes` and its neighbours describe; empty where none is described."""
    cluster = config.cluster
    node = {
        "cpus": float(cluster.cpus_per_node),
        "gpus": float(cluster.gpus_per_node),
        "gpu_bytes": gpu_bytes(config),
        "host_bytes": cluster.host_memory_gib and cluster.host_memory_gib * GIB,
        "object_store_bytes": cluster.object_store_gib * GIB,
    }
    return tuple(Node(name=f"node {number}", **node) for number in range(cluster.nodes or 0))


def gpu_bytes(config: Config) -> float:
    """Memory of a GPU as the configuration states it."""
    given = config.cluster.gpu_memory_gib
    return given * GIB if given else DEVICES[config.cluster.gpu].memory


def place(plan: Plan, nodes: Sequence[Node]) -> Placement:
    """Gives every bundle a node. Raises UserError, with the arithmetic, where that cannot be done.

    Engines over several GPUs go first, for they must fit inside a node; then learners, packed or spread; then single
    GPUs, where they leave whole nodes free, or evenly beside spread learners; what needs no GPU is spread over nodes.
    """
    plan.check({"CPU": sum(node.cpus for node in nodes), "GPU": sum(node.gpus for node in nodes)})
    _check_tensor_parallel(plan, nodes)
    seating = _Seating(plan, tuple(nodes))
    bundles = plan.bundles()
    order = sorted(range(len(bundles)), key=lambda index: _turn(bundles[index]))
    seats = {index: seating.seat(bundles[index]) for index in order}
    return Placement(plan, tuple(nodes), bundles, tuple(seats[index] for index in range(len(bundles))))


def fitting(config: Config, nodes: Sequence[Node]) -> Config:
    """`config` with as many actors of each role as the nodes hold: of the most numerous role one less at a time.

    Raises UserError, with the arithmetic, where one of each is too many. Fewer engines make the same samples, and fewer
    learners the same updates.
    """
    while True:
        try:
            place(make_plan(config), nodes)
            return config
        except UserError:
            role = max(ROLES, key=lambda name: getattr(config, name).num_workers)
            section = getattr(config, role)
            if section.num_workers == 1:
                raise
            config = replace(config, **{role: replace(section, num_workers=section.num_workers - 1)})


def _turn(bundle: Bundle) -> int:
    """When a bundle is placed: 0 first."""
    if bundle.gpus > 1:
        return 0
    if bundle.holds("learner"):
        return 1
    return 2 if bundle.gpus else 3


def _check_tensor_parallel(plan: Plan, nodes: Sequence[Node]) -> None:
    engines = plan.role("rollout")
    if engines is None or engines.gpus <= 1:
        return
    room = sum(int(node.gpus // engines.gpus) for node in nodes)
    if room < engines.count:
        kinds = Counter(node.gpus for node in nodes)
        terms = " + ".join(f"{count} nodes x ({gpus:g} // {engines.gpus:g})" for gpus, count in kinds.items())
        raise UserError(
            f"an engine over {engines.gpus:g} GPUs must fit inside a node: {terms} = room for {room}, {engines.count} "
            "needed; lower rollout.gpus_per_worker or rollout.num_workers"
        )


@dataclass
class _Seating:
    """What is still free while bundles are seated."""

    plan: Plan
    nodes: tuple[Node, ...]
    free: list[tuple[float, float]] = field(init=False)  # (GPUs, CPUs) of each node
    seated: Counter[tuple[str, int]] = field(init=False, default_factory=Counter)  # (role, node) -> actors

    def __post_init__(self) -> None:
        self.free = [(node.gpus, node.cpus) for node in self.nodes]

    def seat(self, bundle: Bundle) -> int:
        """The node that the bundle gets; its resources are taken."""
        fitting = [index for index, free in enumerate(self.free) if _fits(bundle, free)]
        if not fitting:
            raise UserError(self._no_room(bundle))
        best = min(fitting, key=lambda index: (*self._preference(bundle, index), index))
        gpus, cpus = self.free[best]
        self.free[best] = (gpus - bundle.gpus, cpus - bundle.cpus)
        self.seated.update((role, best) for role, _ in bundle.actors)
        return best

    def _preference(self, bundle: Bundle, index: int) -> tuple[float, ...]:
        """Smaller is better."""
        gpus, cpus = self.free[index]
        if bundle.holds("learner"):
            others = self.seated["learner", index]
            return (others if self.plan.spread_learners else -others, -gpus, -cpus)
        if bundle.gpus:
            return (-gpus if self.plan.spread_learners else gpus, -cpus)
        return (self.seated[bundle.actors[0][0], index], -cpus)

    def _no_room(self, bundle: Bundle) -> str:
        left = Counter((round(gpus, 3), round(cpus, 3)) for gpus, cpus in self.free)
        nodes = ", ".join(f"{count} x ({gpus:g} GPUs, {cpus:g} CPUs)" for (gpus, cpus), count in sorted(left.items()))
        names = " + ".join(f"{role}[{number}]" for role, number in bundle.actors)
        key = f"{bundle.actors[0][0]}.cpus_per_worker"
        return (
            f"{names} needs {bundle.gpus:g} GPUs and {bundle.cpus:g} CPUs on one node; left on the nodes when its turn "
            f"comes: {nodes}; lower {key}, or give the nodes more CPUs"
        )


def _fits(bundle: Bundle, free: tuple[float, float]) -> bool:
    return bundle.gpus <= free[0] + TOLERANCE and bundle.cpus <= free[1] + TOLERANCE
