"""A run's actors: reserved and started all at once, replaced one by one where they are, ended all at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from mixed_r1_ray.config import Config
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.placement import Placement
from mixed_r1_ray.remote import fetch

RESERVE_DEADLINE_S = 60.0
LEAST_CPUS = 0.001  # Ray reserves no bundle of nothing


class Actors:
    """Handles by role and number, each actor in its bundle of one placement group; Ray knows it as `role[number]`."""

    def __init__(self, placement: Placement, group, classes: Mapping[str, Any], arguments: Mapping[str, tuple]):
        """classes, arguments: by role, the actor's class and what it is made with."""
        self.placement = placement
        self._group, self._classes, self._arguments = group, classes, arguments
        self._made: Counter[str] = Counter()
        self._pools = {
            role.name: [self._start(role.name, number) for number in range(role.count)] for role in placement.plan.roles
        }

    def of(self, role: str) -> list:
        """The actors of a role; none where the run does without it."""
        return list(self._pools.get(role, ()))

    def names(self) -> list[str]:
        """What Ray calls the actors of now."""
        return [self._name(role, number) for role, pool in self._pools.items() for number in range(len(pool))]

    def replace(self, role: str, number: int):
        """Ends an actor, whatever state it is in, and starts another in its place. The others know nothing of it."""
        ray.kill(self._pools[role][number], no_restart=True)
        self._made[f"{role}[{number}]"] += 1
        actor = self._pools[role][number] = self._start(role, number)
        return actor

    def end(self) -> None:
        """Ends all of them, whatever state they are in, and gives back what was reserved."""
        for pool in self._pools.values():
            for actor in pool:
                ray.kill(actor, no_restart=True)
        ray.util.remove_placement_group(self._group)

    def _start(self, role: str, number: int):
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        needs = self.placement.plan.role(role)
        seat = PlacementGroupSchedulingStrategy(self._group, self.placement.bundle_of(role, number))
        options = {"num_cpus": needs.cpus, "num_gpus": needs.gpus, "scheduling_strategy": seat}
        actor_class = self._classes[role].options(name=self._name(role, number), **options)
        return actor_class.remote(*self._arguments[role])

    def _name(self, role: str, number: int) -> str:
        """Another one for each start: the former may take a while to be forgotten."""
        name = f"{role}[{number}]"
        return f"{name}#{self._made[name]}" if self._made[name] else name


def reserve(placement: Placement):
    """The plan's bundles as one placement group, each on its node, all or none.

    Raises UserError where that is not granted in time, because something else holds what it needs.
    """
    from ray.util.placement_group import NODE_ID_LABEL_KEY, placement_group

    bundles = [
        {name: amount for name, amount in (("CPU", bundle.cpus or LEAST_CPUS), ("GPU", bundle.gpus)) if amount}
        for bundle in placement.bundles
    ]
    nodes = [{NODE_ID_LABEL_KEY: placement.nodes[seat].ray_id} for seat in placement.seats]
    group = placement_group(bundles, bundle_label_selector=nodes)
    if not group.wait(RESERVE_DEADLINE_S):
        free, needed = ray.available_resources(), placement.plan.needed()
        terms = ", ".join(f"{needed[name]:g} {name}s needed, {free.get(name, 0):g} free" for name in needed)
        raise UserError(f"the cluster did not grant this run's actors within {RESERVE_DEADLINE_S:g} s: {terms} in all")
    return group


def create_actors(config: Config, placement: Placement, data_worker: type, *data: object) -> Actors:
    """Reserves all that the plan asks for, then asks Ray for every actor at once; they start side by side.

    data_worker: the class of the data actors, and `data` what they are made with beside the configuration.
    """
    from mixed_r1_ray.policy.reference import ReferenceWorker
    from mixed_r1_ray.policy.worker import LearnerWorker
    from mixed_r1_ray.rewards.worker import RewardWorker
    from mixed_r1_ray.rollout.worker import RolloutWorker

    classes = {
        "data": data_worker,
        "rollout": RolloutWorker,
        "reward": RewardWorker,
        "learner": LearnerWorker,
        "reference": ReferenceWorker,
    }
    run = replace(config.run, dir=str(Path(config.run.dir).resolve()))  # actors have other working directories
    config = replace(config, run=run)
    arguments = dict.fromkeys(classes, (config,)) | {"data": (config, *data)}
    return Actors(placement, reserve(placement), classes, arguments)


def await_ready(actors: Actors, config: Config, progress: Callable[[str], None]) -> None:
    """Returns when every engine, reference and reward worker answers, and says what the engines are.

    Raises, naming the first that does not.
    """
    deadlines = {
        "reward": config.rollout.start_timeout_s,
        "reference": config.learner.start_timeout_s,
        "rollout": config.rollout.start_timeout_s,
    }
    answers = {role: [] for role in deadlines}
    for role, deadline_s in deadlines.items():
        for number, worker in enumerate(actors.of(role)):
            progress(f"starting {role}[{number}]")
            answer = fetch(worker.ready.remote(), what=f"{role}[{number}] starting", deadline_s=deadline_s)
            answers[role].append(answer)
    for facts, count in Counter(answers["rollout"]).items():
        progress(f"{count} engine{'s' if count > 1 else ''}: {facts}")
