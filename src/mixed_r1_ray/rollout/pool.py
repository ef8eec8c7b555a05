"""The rollout actors as one: prompts go out, groups come back as they finish, whichever engine made them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import ray
from ray import ObjectRef

from mixed_r1_ray.remote import ActorFailure, fetch
from mixed_r1_ray.types import GroupInfo, Prompt, SamplingConfig, WeightUpdate


@dataclass(frozen=True, slots=True)
class FinishedGroup:
    """A group that an engine has finished; its tokens stay in the object store."""

    prompt: Prompt
    info: GroupInfo
    group: ObjectRef


class RolloutPool:
    """All engines hold the same version of the weights."""

    def __init__(self, workers: Sequence, timeout_s: float):
        self.workers = list(workers)
        self.timeout_s = timeout_s

    def generate(self, prompts: Sequence[Prompt], sampling: SamplingConfig, step: int) -> Iterator[FinishedGroup]:
        """Yields every prompt's group once, as soon as it is finished."""
        by_id = {prompt.prompt_id: prompt for prompt in prompts}
        streams = {}
        for number, worker in enumerate(self.workers):
            share = prompts[number :: len(self.workers)]
            if share:
                stream = worker.generate.options(num_returns="streaming").remote(share, sampling, step)
                streams[stream] = f"rollout[{number}] generating at step {step}"
        deadline = time.monotonic() + self.timeout_s
        while streams:
            stream = self._next_ready(streams, deadline)
            try:
                info_ref = next(stream)
            except StopIteration:
                del streams[stream]
                continue
            info: GroupInfo = fetch(info_ref, what=streams[stream], deadline_s=self.timeout_s)
            yield FinishedGroup(by_id[info.prompt_id], info, next(stream))

    def load_weights(self, update: WeightUpdate) -> None:
        """All engines take over `update`; returns when the last one has."""
        answers = [worker.load_weights.remote(update) for worker in self.workers]
        what = f"rollout engines loading weight version {update.version}"
        fetch(answers, what=what, deadline_s=self.timeout_s)

    def _next_ready(self, streams: dict, deadline: float):
        ready, _ = ray.wait(list(streams), num_returns=1, timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            raise ActorFailure(f"no group finished within {self.timeout_s:g} s: {'; '.join(streams.values())}")
        return ready[0]
