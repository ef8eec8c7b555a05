"""How a version of the weights gets from the learners to the engines (`rollout.weight_transfer`).

| way | what moves | when |
|---|---|---|
| object_store | gathered on rank 0, through host memory and Ray's object store | anything; the only one without GPUs, or with generation ahead of learning |
| broadcast | buckets over NCCL from rank 0 to all workers of all engines, one sent while the next is gathered | learners and engines on GPUs of their own |
| ipc | nothing: an engine reads them where a learner on its GPU has them | learners and engines take turns on GPUs |

Whatever the way, what training never changes goes once, through the object store; each bucket carries a checksum; the
engine counts what it filled; and an engine that takes another's place gets the same version from the object store.
"""

from __future__ import annotations

from typing import Protocol

from mixed_r1_ray.config import Config
from mixed_r1_ray.policy.group import LearnerGroup
from mixed_r1_ray.remote import fetch
from mixed_r1_ray.rollout.pool import RolloutPool
from mixed_r1_ray.sync.broadcast import Meeting
from mixed_r1_ray.sync.ways import chosen_way


class WeightTransfer(Protocol):
    """One of the ways."""

    def hand_over(self, version: int) -> None:
        """From when this returns, what is asked of the engines is answered with the learners' weights, as this version."""


def make_weight_transfer(config: Config, learners: LearnerGroup, rollout: RolloutPool) -> WeightTransfer:
    """The way that `config` asks for."""
    match chosen_way(config):
        case "ipc":
            return Lending(learners, rollout)
        case "broadcast":
            return Broadcasting(learners, rollout, config)
    return Storing(learners, rollout, ahead=config.algo.max_staleness > 0)


class Storing:
    """object_store. ahead: engines have prompts waiting for earlier versions, and load this one when they come to it."""

    def __init__(self, learners: LearnerGroup, rollout: RolloutPool, ahead: bool = False):
        self._learners = learners
        self._give = rollout.queue_weights if ahead else rollout.load_weights

    def hand_over(self, version: int) -> None:
        self._give(self._learners.weights(version))


class Lending:
    """ipc: rank k lends to engine k, sleeps, and takes back when the engine has read."""

    def __init__(self, learners: LearnerGroup, rollout: RolloutPool):
        self._learners, self._rollout = learners, rollout

    def hand_over(self, version: int) -> None:
        constant, lent = self._learners.constant_weights(), self._learners.lend_weights(version)
        self._rollout.take_turn()
        engines = self._rollout.running().items()
        asked = {number: actor.borrow_weights.remote(version, lent[number], constant) for number, actor in engines}
        self._rollout.take_over(version, asked, again=lambda: self._learners.weights(version))
        self._learners.take_back_weights()


class Broadcasting:
    """broadcast: a group that is formed anew when an engine has taken another's place."""

    def __init__(self, learners: LearnerGroup, rollout: RolloutPool, config: Config):
        self._learners, self._rollout, self._config = learners, rollout, config
        self._members: dict[int, object] = {}

    def hand_over(self, version: int) -> None:
        constant, layouts = self._learners.constant_weights(), self._learners.weight_layouts()
        running = self._rollout.running()
        if running != self._members:
            self._meet(running)
        sending = self._learners.begin_broadcast()
        asked = {number: actor.receive_weights.remote(version, layouts, constant) for number, actor in running.items()}
        self._rollout.take_over(version, asked, again=lambda: self._learners.weights(version))
        what = f"learner ranks broadcasting weight version {version}"
        fetch(sending, what=what, deadline_s=self._config.learner.timeout_s)

    def _meet(self, running: dict[int, object]) -> None:
        sender, width = self._learners.workers[0], max(1, self._config.rollout.gpus_per_worker)
        deadline_s = self._config.rollout.start_timeout_s
        _, address = fetch(sender.home.remote(), what="learner[0] telling its address", deadline_s=deadline_s)
        meeting = Meeting(f"tcp://{address}", 1 + width * len(running), deadline_s)
        joining = [sender.join_broadcast.remote(meeting)]
        for place, actor in enumerate(running.values()):
            joining.append(actor.join_broadcast.remote(meeting, 1 + place * width))
        fetch(joining, what="learner[0] and the engines meeting for a broadcast", deadline_s=deadline_s)
        self._members = running
