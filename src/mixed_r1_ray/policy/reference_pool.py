"""The reference actors as one: groups go out in turn, log-probabilities stay in the object store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ray import ObjectRef

from mixed_r1_ray.remote import fetch
from mixed_r1_ray.turns import Turns, no_turns
from mixed_r1_ray.types import PromptInputs


@dataclass(frozen=True, slots=True)
class Judged:
    """A reference's answer: whether it is done, small enough for the driver, and the log-probabilities."""

    done: ObjectRef
    logprobs: ObjectRef


class ReferencePool:
    """Copies of one frozen model. `at_once`: they may work while engines do; else they share their GPUs."""

    def __init__(self, workers: Sequence, timeout_s: float, turns: Turns | None = None):
        self.workers, self.timeout_s = list(workers), timeout_s
        self._turns = turns or no_turns()
        self.at_once = not self._turns.shares("reference")
        self._number = 0

    def __bool__(self) -> bool:
        return bool(self.workers)

    def ask(self, inputs: ObjectRef | PromptInputs, group: ObjectRef) -> Judged:
        """Has the next one judge a group; returns at once, but for its turn on shared GPUs."""
        self._turns.take("reference")
        self._number = (self._number + 1) % len(self.workers)
        return Judged(*self.workers[self._number].logprobs.remote(inputs, group))

    def wait(self, judged: Sequence[Judged], what: str) -> None:
        """Returns when all are done."""
        fetch([one.done for one in judged], what=what, deadline_s=self.timeout_s)
