"""GPUs that a placement leaves idle, in a sentence that says what to raise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from .cluster_plan import Plan, make_plan
from .config import Config
from .config_check import contradictions
from .errors import UserError
from .placement import Node, Placement, place

GPU_ROLES = ("rollout", "learner", "reference")


def idle_gpus(config: Config, placement: Placement) -> str | None:
    """None where every GPU is taken."""
    idle, there = sum(placement.idle_gpus), sum(node.gpus for node in placement.nodes)
    if not idle:
        return None
    where = ", ".join(f"{left:g} on {names}" for left, names in _by_number(placement))
    return f"{idle:g} of {there:g} GPUs stay idle ({where}); to use them {_advice(config, placement)}"


def _by_number(placement: Placement) -> Iterator[tuple[float, str]]:
    left = dict(zip((node.name for node in placement.nodes), placement.idle_gpus, strict=True))
    for number in dict.fromkeys(number for number in left.values() if number):
        names = [name for name in left if left[name] == number]
        yield number, names[0] if len(names) == 1 else f"each of {len(names)} nodes ({names[0]} to {names[-1]})"


def _advice(config: Config, placement: Placement) -> str:
    """What to raise; with numbers, where some that raise all alike, or the engines alone, are found to fit."""
    roles = [role.name for role in placement.plan.roles if role.gpus]
    if not roles:
        keys = [f"{role.name}.gpus_per_worker" for role in placement.plan.roles if role.name in GPU_ROLES]
        return f"raise {' and '.join(keys)}, which are 0"
    keys = [f"{name}.num_workers ({getattr(config, name).num_workers} now)" for name in roles]
    larger = _larger(config, placement.plan, placement.nodes, roles)
    example = " ".join(f"{name}.num_workers={count}" for name, count in larger.items())
    return f"raise {' or '.join(keys)}" + (f", for example {example}" if example else "")


def _larger(config: Config, plan: Plan, nodes: Sequence[Node], roles: Sequence[str]) -> dict[str, int]:
    now = {name: getattr(config, name).num_workers for name in roles}
    there, needed = sum(node.gpus for node in nodes), plan.needed()["GPU"]
    times, engine = int(there // needed), max(1, config.rollout.gpus_per_worker)
    tried = [{name: times * count for name, count in now.items()}] if times > 1 else []
    if "rollout" in now:
        tried.append({"rollout": now["rollout"] + int((there - needed) // engine)})
    return next((sizes for sizes in tried if sizes != now and _fits(config, sizes, plan, nodes)), {})


def _fits(config: Config, sizes: dict[str, int], plan: Plan, nodes: Sequence[Node]) -> bool:
    sections = {name: replace(getattr(config, name), num_workers=count) for name, count in sizes.items()}
    larger = replace(config, **sections)
    try:
        place(make_plan(larger).only(*(role.name for role in plan.roles)), nodes)
    except UserError:
        return False
    return not contradictions(larger)
