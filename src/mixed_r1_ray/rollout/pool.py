"""The rollout actors as one: prompts go out, groups come back as they finish, whichever engine made them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import ray
from ray import ObjectRef, ObjectRefGenerator

from mixed_r1_ray.remote import ActorFailure, fetch
from mixed_r1_ray.types import GroupInfo, Prompt, SamplingConfig, WeightUpdate


@dataclass(frozen=True, slots=True)
class FinishedGroup:
    """A group that an engine has finished; its tokens stay in the object store."""

    prompt: Prompt
    info: GroupInfo
    group: ObjectRef


class GroupStream:
    """Groups that engines are generating, each once, as they finish: iterating waits, `ready` does not.

    loads: what the engines were to take over before; a failure there is raised before any group of the stream.
    """

    def __init__(
        self, streams: dict[ObjectRefGenerator, str], prompts: Sequence[Prompt], loads: Sequence[Load], timeout_s: float
    ):
        self._streams, self._loads, self._timeout_s = streams, list(loads), timeout_s
        self._prompts = {prompt.prompt_id: prompt for prompt in prompts}
        self._deadline: float | None = None  # runs from the first wait: before that, other batches may come first

    @classmethod
    def of_nothing(cls) -> GroupStream:
        """One that is at its end."""
        return cls({}, (), (), 0.0)

    def __iter__(self) -> Iterator[FinishedGroup]:
        while self._streams:
            if (group := self._next(wait=True)) is not None:
                yield group

    def ready(self) -> list[FinishedGroup]:
        """What has finished since it was last asked."""
        groups = []
        while self._streams and (group := self._next(wait=False)) is not None:
            groups.append(group)
        return groups

    def _next(self, wait: bool) -> FinishedGroup | None:
        """None where a stream has ended or, without `wait`, nothing is there."""
        if wait and self._deadline is None:
            self._deadline = time.monotonic() + self._timeout_s
        left = max(0.0, self._deadline - time.monotonic()) if wait else 0.0
        ready, _ = ray.wait(list(self._streams), num_returns=1, timeout=left)
        if not ready:
            if not wait:
                return None
            raise ActorFailure(f"no group finished within {self._timeout_s:g} s: {'; '.join(self._streams.values())}")
        (stream,) = ready
        while self._loads:
            self._loads.pop().finish()
        try:
            info_ref = next(stream)
        except StopIteration:
            del self._streams[stream]
            return None
        info: GroupInfo = fetch(info_ref, what=self._streams[stream], deadline_s=self._timeout_s)
        return FinishedGroup(self._prompts[info.prompt_id], info, next(stream))


@dataclass(frozen=True, slots=True)
class Load:
    """Engines taking over a version of the weights."""

    version: int
    answers: list[ObjectRef]
    timeout_s: float

    def finish(self) -> None:
        """Returns when the last engine has it. Raises what one of them raised."""
        what = f"rollout engines loading weight version {self.version}"
        fetch(self.answers, what=what, deadline_s=self.timeout_s)


class RolloutPool:
    """All engines hold the same version of the weights, and do what they are asked one after the other."""

    def __init__(self, workers: Sequence, timeout_s: float):
        self.workers = list(workers)
        self.timeout_s = timeout_s
        self._loads: list[Load] = []  # queued and not known to have ended

    def generate(self, prompts: Sequence[Prompt], sampling: SamplingConfig, step: int) -> GroupStream:
        """Has the engines generate; returns at once with the stream of groups, one for each prompt."""
        streams = {}
        for number, worker in enumerate(self.workers):
            share = prompts[number :: len(self.workers)]
            if share:
                stream = worker.generate.options(num_returns="streaming").remote(share, sampling, step)
                streams[stream] = f"rollout[{number}] generating at step {step}"
        loads = self._loads
        if streams:
            self._loads = []
        return GroupStream(streams, prompts, loads, self.timeout_s)

    def load_weights(self, update: WeightUpdate) -> None:
        """All engines take over `update`; returns when the last one has."""
        self._load(update).finish()

    def queue_weights(self, update: WeightUpdate) -> None:
        """All engines take over `update` after what they were asked for before; does not wait for them."""
        self._loads.append(self._load(update))

    def _load(self, update: WeightUpdate) -> Load:
        answers = [worker.load_weights.remote(update) for worker in self.workers]
        return Load(update.version, answers, self.timeout_s)
