"""Which actors a run needs, what each asks of the cluster, and whether the cluster has it. No Ray here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor
from typing import TYPE_CHECKING

from .config import Config
from .errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

RESOURCES = ("CPU", "GPU")
TOLERANCE = 1e-6  # sums of 0.1s


@dataclass(frozen=True)
class Role:
    """Actors of one kind; `cpus` and `gpus` are Ray's logical ones, for each actor."""

    name: str  # also the section of the configuration that sizes it
    count: int
    cpus: float
    gpus: float
    purpose: str

    def need(self, resource: str) -> float:
        """What all actors of this role take together."""
        return self.count * self.each(resource)

    def each(self, resource: str) -> float:
        """What one actor of this role takes."""
        return self.cpus if resource == "CPU" else self.gpus


@dataclass(frozen=True)
class Plan:
    """All roles of a run."""

    roles: tuple[Role, ...]

    def role(self, name: str) -> Role | None:
        """The role of that name; None when the run does without it (the reference at algo.beta=0)."""
        return next((role for role in self.roles if role.name == name), None)

    def needed(self) -> dict[str, float]:
        """Resource -> sum over all actors; rounded, so that three thirds of a GPU are one."""
        return {resource: round(sum(role.need(resource) for role in self.roles), 3) for resource in RESOURCES}

    def check(self, available: Mapping[str, float]) -> None:
        """Raises UserError, arithmetic shown, where a sum exceeds `available` (ray.cluster_resources())."""
        shortages = [
            self._shortage(resource, available.get(resource, 0.0))
            for resource in RESOURCES
            if self.needed()[resource] > available.get(resource, 0.0) + TOLERANCE
        ]
        if shortages:
            raise UserError("\n".join(shortages))

    def table(self) -> Table:
        """The plan for a person to read."""
        from rich.table import Table

        columns = ("actors", "number", "CPUs each", "GPUs each", "what for")
        table = Table(*columns, title="Placement plan", title_justify="left")
        for role in self.roles:
            table.add_row(role.name, str(role.count), f"{role.cpus:g}", f"{role.gpus:g}", role.purpose)
        total, actors = self.needed(), sum(role.count for role in self.roles)
        table.add_section()
        table.add_row("in all", str(actors), f"{total['CPU']:g}", f"{total['GPU']:g}", "sums")
        return table

    def _shortage(self, resource: str, available: float) -> str:
        asking = [role for role in self.roles if role.need(resource) > 0]
        terms = " + ".join(f"{role.name} {role.count} x {role.each(resource):g}" for role in asking)
        largest = max(asking, key=lambda role: role.need(resource))
        keys = [f"{largest.name}.{resource.lower()}s_per_worker"]
        if largest.count > 1:
            keys.insert(0, f"{largest.name}.num_workers")
        return (
            f"{terms} = {self.needed()[resource]:g} {resource}s needed, {available:g} available; "
            f"lower {' or '.join(keys)}, or give Ray more {resource}s"
        )


def has_reference_worker(config: Config) -> bool:
    """A model of its own: under LoRA the reference is the policy without its adapters, which the learners hold."""
    return config.algo.beta > 0 and config.learner.lora_rank == 0


def make_plan(config: Config) -> Plan:
    """The actors that `config` asks for."""
    c = config
    gpu_roles = [
        c.rollout.gpus_per_worker,
        c.learner.gpus_per_worker,
        has_reference_worker(c) and c.reference.gpus_per_worker,
    ]
    sharers = sum(1 for gpus in gpu_roles if gpus) if c.cluster.share_gpus else 1

    def share(gpus: int) -> float:
        return floor(1e4 * gpus / sharers) / 1e4 if gpus else 0.0  # Ray counts in 1/10000

    roles = [
        Role("data", c.data.num_workers, c.data.cpus_per_worker, 0.0, "decode pictures"),
        Role(
            "rollout",
            c.rollout.num_workers,
            c.rollout.cpus_per_worker,
            share(c.rollout.gpus_per_worker),
            "sample responses (vLLM)",
        ),
        Role("reward", c.reward.num_workers, c.reward.cpus_per_worker, 0.0, "score responses"),
        Role(
            "learner",
            c.learner.num_workers,
            c.learner.cpus_per_worker,
            share(c.learner.gpus_per_worker),
            "update the policy (ZeRO-3)",
        ),
    ]
    if has_reference_worker(c):
        gpus = share(c.reference.gpus_per_worker)
        roles.append(Role("reference", 1, c.reference.cpus_per_worker, gpus, "log-probabilities for KL"))
    return Plan(tuple(roles))
