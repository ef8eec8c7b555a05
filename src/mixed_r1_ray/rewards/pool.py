"""Gets every group scored by one of the reward workers, whatever dies meanwhile, or says why not."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import ray
from ray import ObjectRef

from mixed_r1_ray.config import RewardConfig
from mixed_r1_ray.remote import ActorDied, ActorFailure, BeyondRepair, fetch, first_made
from mixed_r1_ray.types import Prompt, RewardBreakdown

MAX_TRIES = 3  # calls that a group may be part of before it counts as unscored
FETCH_TIMEOUT_S = 60.0  # for an answer that is there to be brought here
RESTART_TIMEOUT_S = 180.0  # for a worker whose process died or was killed to answer again


@dataclass(slots=True, eq=False)
class PendingScore:
    """A group on its way to its rewards. `failures`: worker and reason of each try that came to nothing."""

    prompt: Prompt
    group: ObjectRef
    num_samples: int
    progress: float
    failures: list[tuple[int, str]] = field(default_factory=list)
    rewards: tuple[RewardBreakdown, ...] | None = None


@dataclass(slots=True, eq=False)
class _Worker:
    """One actor and the call it is busy with: `groups` are being scored, none of them while it restarts."""

    number: int
    actor: object
    groups: list[PendingScore] = field(default_factory=list)
    answer: ObjectRef | None = None
    deadline: float = math.inf  # of `answer`, on the monotonic clock
    num_scored: int = 0  # samples so far
    lost: bool = False  # could not be restarted

    @property
    def idle(self) -> bool:
        return self.answer is None and not self.lost

    @property
    def restarting(self) -> bool:
        return self.answer is not None and not self.groups


class RewardPool:
    """Groups wait in one queue; a worker that is free takes up to `batch_groups` of them as one call.

    A group has timeout_s and sample_timeout_s for each of its samples, a call the sum. One that fails, overruns
    or dies with its worker is repeated, group by group and on another worker if there is one, so that a bad
    group takes no other down with it.
    A worker that died, or was killed for overrunning, is restarted and gets nothing to do before it answers.
    """

    def __init__(
        self,
        workers: Sequence,
        timeout_s: float,
        warn: Callable[[str], None],
        batch_groups: int = 8,
        sample_timeout_s: float = 0.0,
    ):
        self.timeout_s, self.sample_timeout_s = timeout_s, sample_timeout_s
        self.warn, self.batch_groups = warn, batch_groups
        self._workers = [_Worker(number, actor) for number, actor in enumerate(workers)]
        self._waiting: list[PendingScore] = []

    @classmethod
    def from_config(cls, workers: Sequence, reward: RewardConfig, warn: Callable[[str], None]) -> RewardPool:
        """The pool that `reward.*` describes. Rewards that have a deadline of their own may use it up."""
        own = max(reward.math_timeout_s, reward.custom_timeout_s if reward.custom else 0.0)
        return cls(workers, reward.timeout_s, warn, reward.batch_groups, sample_timeout_s=own)

    def submit(self, prompt: Prompt, group: ObjectRef, num_samples: int, progress: float) -> PendingScore:
        """Starts scoring if a worker is free, and queues otherwise; returns at once."""
        pending = PendingScore(replace(prompt, images=None, inputs=None), group, num_samples, progress)
        self._waiting.append(pending)
        self._advance(block=False)
        return pending

    def collect(self, pending: PendingScore) -> tuple[RewardBreakdown, ...]:
        """The group's rewards, a sample each; all None, with the causes, if no worker could score it.

        Raises the UserError that a worker raised: it concerns the configuration, not the group.
        """
        while pending.rewards is None:
            self._advance(block=True)
        return pending.rewards

    def advance(self) -> None:
        """Hands out what waits and takes what is finished; returns at once."""
        self._advance(block=False)

    def _advance(self, block: bool) -> None:
        """Hands out what waits, and takes what is finished; `block`: not before something is."""
        self._dispatch()
        busy = {worker.answer: worker for worker in self._workers if worker.answer is not None}
        if not busy:
            self._give_up()
            return
        nearest = min(worker.deadline for worker in busy.values()) - time.monotonic()
        what = "; ".join(_name(worker) for worker in busy.values()) if block else ""
        done = first_made(list(busy), what=what, seconds=nearest if block else 0.0)
        for answer, worker in busy.items():
            if answer in done:
                self._settle(worker)
            elif time.monotonic() > worker.deadline:
                self._overrun(worker)
        self._dispatch()

    def _dispatch(self) -> None:
        """Gives idle workers what waits, the least used first."""
        idle = [worker for worker in self._workers if worker.idle]
        idle.sort(key=lambda worker: worker.num_scored)
        running = sum(not (worker.lost or worker.restarting) for worker in self._workers)
        for worker in idle:
            groups = self._take(worker, math.ceil(len(self._waiting) / running))
            if not groups:
                continue
            prompts = [pending.prompt for pending in groups]
            worker.answer = worker.actor.score.remote(
                prompts, groups[0].progress, *(pending.group for pending in groups)
            )
            worker.groups, worker.deadline = groups, time.monotonic() + self._allowed_s(groups)

    def _take(self, worker: _Worker, share: int) -> list[PendingScore]:
        """The first waiting group that `worker` may score; if it never failed, up to `share` of them."""
        allowed = [pending for pending in self._waiting if self._may_score(worker, pending)]
        if not allowed:
            return []
        first, taken = allowed[0], allowed[:1]
        if not first.failures:
            alike = [p for p in allowed if p.progress == first.progress and not p.failures]
            taken = alike[: min(share, self.batch_groups)]
        self._waiting = [pending for pending in self._waiting if pending not in taken]
        return taken

    def _may_score(self, worker: _Worker, pending: PendingScore) -> bool:
        """Whether it is new to the group, or there is none that is and that is running."""
        tried = {number for number, _ in pending.failures}
        return worker.number not in tried or all(
            other.number in tried or other.restarting or other.lost for other in self._workers
        )

    def _settle(self, worker: _Worker) -> None:
        """Takes the answer of a call, or of a restart, that has come to an end."""
        groups, answer, what = worker.groups, worker.answer, _name(worker)
        worker.groups, worker.answer, worker.deadline = [], None, math.inf
        try:
            answers = fetch(answer, what=what, deadline_s=FETCH_TIMEOUT_S)
        except BeyondRepair:
            raise
        except ActorDied as error:
            self._fail(worker, groups, str(error))
            if groups:
                self._restart(worker)
            else:
                self._lose(worker, str(error))
        except ActorFailure as error:
            self._fail(worker, groups, str(error))
        else:
            for pending, rewards in zip(groups, answers if groups else (), strict=True):
                pending.rewards = rewards
                worker.num_scored += len(rewards)

    def _overrun(self, worker: _Worker) -> None:
        """Ends a process that is past its deadline."""
        groups, what = worker.groups, _name(worker)
        worker.groups, worker.answer, worker.deadline = [], None, math.inf
        ray.kill(worker.actor, no_restart=not groups)
        if groups:
            self._fail(worker, groups, f"{what}: no answer within {self._allowed_s(groups):g} s")
            self._restart(worker)
        else:
            self._lose(worker, f"{what}: not there after {RESTART_TIMEOUT_S:g} s")

    def _allowed_s(self, groups: Sequence[PendingScore]) -> float:
        return sum(self.timeout_s + self.sample_timeout_s * pending.num_samples for pending in groups)

    def _restart(self, worker: _Worker) -> None:
        """Ray restarts the process by itself; until it answers the worker counts as busy."""
        worker.answer = worker.actor.ready.remote()
        worker.deadline = time.monotonic() + RESTART_TIMEOUT_S
        self.warn(f"reward[{worker.number}] died or hung and is restarted; its groups are scored again")

    def _lose(self, worker: _Worker, reason: str) -> None:
        worker.lost = True
        self.warn(f"reward[{worker.number}] is lost: {reason}")

    def _fail(self, worker: _Worker, groups: Sequence[PendingScore], reason: str) -> None:
        """Counts a try in vain: the groups go to the head of the queue or, after the last try, unscored."""
        for pending in groups:
            pending.failures.append((worker.number, reason))
            if len(pending.failures) == MAX_TRIES:
                _mark_unscored(pending)
        self._waiting = [pending for pending in groups if pending.rewards is None] + self._waiting

    def _give_up(self) -> None:
        """No worker is left, or nothing waits."""
        waiting, self._waiting = self._waiting, []
        for pending in waiting:
            pending.failures.append((-1, "no reward worker is left"))
            _mark_unscored(pending)


def _name(worker: _Worker) -> str:
    if not worker.groups:
        return f"reward[{worker.number}] restarting"
    more = f" and {len(worker.groups) - 1} more" if len(worker.groups) > 1 else ""
    return f"reward[{worker.number}] scoring prompt {worker.groups[0].prompt.prompt_id!r}{more}"


def _mark_unscored(pending: PendingScore) -> None:
    reason = "; then ".join(dict.fromkeys(reason for _, reason in pending.failures))
    breakdown = RewardBreakdown(pending.prompt.reward_type, None, None, None, reason)
    pending.rewards = (breakdown,) * pending.num_samples
