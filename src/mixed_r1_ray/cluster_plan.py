"""Which actors a run needs, what each asks of the cluster, and whether the cluster has it. No Ray here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor

from .config import Config
from .errors import UserError

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
class Bundle:
    """Actors that are placed as one, by role and number: one alone, or those that take turns on a GPU."""

    actors: tuple[tuple[str, int], ...]
    cpus: float
    gpus: float

    def holds(self, role: str) -> bool:
        return any(name == role for name, _ in self.actors)


@dataclass(frozen=True)
class Plan:
    """All roles of a run. `sharing`: those with GPUs take turns on the same ones."""

    roles: tuple[Role, ...]
    sharing: bool = False
    spread_learners: bool = False

    def role(self, name: str) -> Role | None:
        """The role of that name; None when the run does without it (the reference at algo.beta=0)."""
        return next((role for role in self.roles if role.name == name), None)

    def bundles(self) -> tuple[Bundle, ...]:
        """What is placed as one, shared GPUs first, then by role."""
        sharers = [role for role in self.roles if self.sharing and role.gpus]
        shared = []
        for number in range(max((role.count for role in sharers), default=0)):
            seated = [role for role in sharers if number < role.count]
            actors = tuple((role.name, number) for role in seated)
            shared.append(Bundle(actors, sum(role.cpus for role in seated), 1.0))
        alone = [
            Bundle(((role.name, number),), role.cpus, role.gpus)
            for role in self.roles
            if role not in sharers
            for number in range(role.count)
        ]
        return (*shared, *alone)

    def needed(self) -> dict[str, float]:
        """Resource -> sum over all bundles."""
        bundles = self.bundles()
        return {
            "CPU": round(sum(bundle.cpus for bundle in bundles), 3),
            "GPU": round(sum(bundle.gpus for bundle in bundles), 3),
        }

    def check(self, available: Mapping[str, float]) -> None:
        """Raises UserError, arithmetic shown, where a sum exceeds `available` (ray.cluster_resources())."""
        shortages = [
            self._shortage(resource, available.get(resource, 0.0))
            for resource in RESOURCES
            if self.needed()[resource] > available.get(resource, 0.0) + TOLERANCE
        ]
        if shortages:
            raise UserError("\n".join(shortages))

    def _shortage(self, resource: str, available: float) -> str:
        asking = [role for role in self.roles if role.need(resource) > 0]
        if resource == "GPU" and self.sharing:
            terms = "the most of " + ", ".join(f"{role.name} {role.count}" for role in asking)
            largest = max(asking, key=lambda role: role.count)
        else:
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
    sections = {
        "data": (config.data, "decode pictures"),
        "rollout": (config.rollout, "sample responses (vLLM)"),
        "reward": (config.reward, "score responses"),
        "learner": (config.learner, "update the policy (ZeRO-3)"),
        "reference": (config.reference, "log-probabilities for KL"),
    }
    if not has_reference_worker(config):
        del sections["reference"]
    gpus = {name: getattr(section, "gpus_per_worker", 0) for name, (section, _) in sections.items()}
    sharers = sum(1 for number in gpus.values() if number) if config.cluster.share_gpus else 1

    def share(number: int) -> float:
        return floor(1e4 * number / sharers) / 1e4 if number else 0.0  # Ray counts in 1/10000

    roles = [
        Role(name, section.num_workers, section.cpus_per_worker, share(gpus[name]), purpose)
        for name, (section, purpose) in sections.items()
    ]
    spread = config.learner.placement == "spread"
    return Plan(tuple(roles), sharing=config.cluster.share_gpus, spread_learners=spread)
