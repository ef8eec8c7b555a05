"""The rollout actors as one: prompts go out, groups come back as they finish, whichever engine made them.

An engine that dies, hangs or raises is replaced, and what it had not finished is asked of the others; a batch is
generated with the weights that it was begun with, whoever takes it over. Seeds belong to samples, so the groups are
those that the first engine would have made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ray import ObjectRef, ObjectRefGenerator

from mixed_r1_ray.remote import ActorFailure, BeyondRepair, fetch, first_made
from mixed_r1_ray.restarts import Restarts
from mixed_r1_ray.turns import Turns, no_turns
from mixed_r1_ray.types import GroupInfo, Prompt, SamplingConfig, WeightUpdate


@dataclass(frozen=True, slots=True)
class FinishedGroup:
    """A group that an engine has finished; its tokens stay in the object store."""

    prompt: Prompt
    info: GroupInfo
    group: ObjectRef


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of the engines for each prompt. update: the weights to do it with; None: those of now."""

    sampling: SamplingConfig
    step: int
    update: WeightUpdate | None


@dataclass(slots=True, eq=False)
class _Engine:
    """One actor. `ready`: its answer once it has started, where it took another's place."""

    number: int
    actor: object
    restarts: Restarts
    ready: ObjectRef | None = None

    def starting(self) -> bool:
        """Whether it cannot do anything yet."""
        if self.ready is not None and first_made([self.ready], what="", seconds=0):
            self.ready = None
        return self.ready is not None


@dataclass(slots=True, eq=False)
class _Share:
    """Prompts in the hands of an engine's actor, by id, until their groups are here. `group`: one without its info yet."""

    engine: _Engine
    actor: object
    prompts: dict[str, Prompt]
    stream: ObjectRefGenerator
    group: ObjectRef | None = None


class GroupStream:
    """Groups that engines are generating, each once, as they finish: iterating waits, `ready` does not."""

    def __init__(self, pool: RolloutPool | None, shares: Sequence[_Share], request: Request | None):
        self._pool, self._shares, self._request = pool, list(shares), request
        self._deadline: float | None = None  # runs from the first wait: before that, other batches may come first

    @classmethod
    def of_nothing(cls) -> GroupStream:
        """One that is at its end."""
        return cls(None, (), None)

    def __iter__(self) -> Iterator[FinishedGroup]:
        while self._shares:
            yield from self._take(wait=True) or ()

    def ready(self) -> list[FinishedGroup]:
        """What has finished since it was last asked."""
        groups = []
        while self._shares and (taken := self._take(wait=False)) is not None:
            groups += taken
        return groups

    def _take(self, wait: bool) -> list[FinishedGroup] | None:
        """What the streams have made of late, one object of each; None where, without `wait`, nothing is there."""
        if wait and self._deadline is None:
            self._deadline = time.monotonic() + self._pool.timeout_s
        left = max(0.0, self._deadline - time.monotonic()) if wait else 0.0
        by_stream = {share.stream: share for share in self._shares}
        made = first_made(list(by_stream), what=self._doing(), seconds=left)
        if not made and not wait:
            return None
        if not made:
            self._overrun()
        return [group for stream in made if (group := self._next(by_stream[stream])) is not None]

    def _next(self, share: _Share) -> FinishedGroup | None:
        """One object of a stream: a group, then its info, and so on. A failure lies where the next one would."""
        try:
            made = next(share.stream, None)
            if made is not None and share.group is None:
                share.group = made
                return None
            if made is None and not share.prompts:
                self._shares.remove(share)
                return None
            what, answer = _name(share, self._request), share.group if made is None else made
            if answer is None:
                raise ActorFailure(f"{what}: ended with {len(share.prompts)} prompts unanswered")
            info: GroupInfo = fetch(answer, what=what, deadline_s=self._pool.timeout_s)
        except BeyondRepair:
            raise
        except ActorFailure as error:
            self._replace(share, error)
            return None
        finished = FinishedGroup(share.prompts.pop(info.prompt_id), info, share.group)
        share.group = None
        self._pool.worked(share.engine, share.actor)
        return finished

    def _overrun(self) -> None:
        """Nothing came in time: whoever still has prompts is taken to hang."""
        for share in list(self._shares):
            what = _name(share, self._request)
            self._replace(share, ActorFailure(f"{what}: no group finished within {self._pool.timeout_s:g} s"))

    def _replace(self, share: _Share, error: ActorFailure) -> None:
        """Its prompts go to engines that run. Batches may have been given to the same actor: it is replaced once."""
        self._shares.remove(share)
        self._pool.replace(share.engine, share.actor, error)
        self._shares += self._pool.deal(list(share.prompts.values()), self._request)
        if self._deadline is not None:
            self._deadline = time.monotonic() + self._pool.timeout_s + self._pool.start_timeout_s

    def _doing(self) -> str:
        return "; ".join(_name(share, self._request) for share in self._shares)


class RolloutPool:
    """All engines do what they are asked one after the other."""

    def __init__(
        self,
        workers: Sequence,
        timeout_s: float,
        start_timeout_s: float = 0.0,
        renew: Callable[[int], object] | None = None,
        max_restarts: int = 0,
        warn: Callable[[str], None] = print,
        turns: Turns | None = None,
    ):
        """renew: ends the actor of that number and starts another in its place; None: a failure is raised at once.

        timeout_s: for a batch, start_timeout_s besides where an engine was replaced. warn: told of each replacement.
        """
        self.timeout_s, self.start_timeout_s = timeout_s, start_timeout_s
        self._engines = [_Engine(number, actor, Restarts(max_restarts)) for number, actor in enumerate(workers)]
        self._renew, self._warn, self._turns = renew, warn, turns or no_turns()
        self._update: WeightUpdate | None = None
        self._again: Callable[[], WeightUpdate] | None = None

    @property
    def workers(self) -> list:
        """The actors of now."""
        return [engine.actor for engine in self._engines]

    def generate(self, prompts: Sequence[Prompt], sampling: SamplingConfig, step: int) -> GroupStream:
        """Has the engines generate; returns at once with the stream of groups, one for each prompt."""
        self._turns.take("rollout")
        request = Request(sampling, step, self._update)
        return GroupStream(self, self.deal(prompts, request), request)

    def load_weights(self, update: WeightUpdate) -> None:
        """Engines take over `update`; returns when the last has, or was replaced. Those that start load it later."""
        self._turns.take("rollout")
        self._update, self._again = update, None
        self._await(update.version, {number: actor.load_weights.remote(update) for number, actor in self.running().items()})

    def take_over(
        self, version: int, asked: Mapping[int, ObjectRef], again: Callable[[], WeightUpdate]
    ) -> None:
        """Returns when the engines have answered that they took over a version, or were replaced.

        asked: the answer to come of each engine that was given it, by number. again: the same version in the object
        store, for the others.
        """
        self._update, self._again = None, again
        self._await(version, asked)
        if len(asked) < len(self._engines):
            self._keep_for_others()

    def running(self) -> dict[int, object]:
        """Number -> actor of each engine that is not starting."""
        return {engine.number: engine.actor for engine in self._engines if not engine.starting()}

    def take_turn(self) -> None:
        """Wakes the engines where they share GPUs with other roles, which then sleep."""
        self._turns.take("rollout")

    def _await(self, version: int, asked: Mapping[int, ObjectRef]) -> None:
        actors = {number: self._engines[number].actor for number in asked}
        for number, answer in asked.items():
            what = f"rollout[{number}] loading weight version {version}"
            try:
                fetch(answer, what=what, deadline_s=self.timeout_s)
            except BeyondRepair:
                raise
            except ActorFailure as error:
                self.replace(self._engines[number], actors[number], error)

    def _keep_for_others(self) -> None:
        """Weights that went past the object store are put there for an engine that did not get them."""
        if self._update is None and self._again is not None:
            self._update = self._again()
            self._turns.take("rollout")

    def queue_weights(self, update: WeightUpdate) -> None:
        """What is asked for from now on is generated with `update`; engines load it when they come to that."""
        self._update = update

    def deal(self, prompts: Sequence[Prompt], request: Request) -> list[_Share]:
        """Gives every engine its share; one that is starting gets none, unless all are."""
        engines = [self._engines[number] for number in self.running()] or self._engines
        update = request.update or self._update
        shares = []
        for number, engine in enumerate(engines):
            if share := prompts[number :: len(engines)]:
                stream = engine.actor.generate.options(num_returns="streaming").remote(
                    share, request.sampling, request.step, update
                )
                shares.append(_Share(engine, engine.actor, {prompt.prompt_id: prompt for prompt in share}, stream))
        return shares

    def replace(self, engine: _Engine, actor: object, error: ActorFailure) -> None:
        """Another actor in the place of `actor`, unless there is one already. Raises UserError after too many."""
        if engine.actor is not actor:
            return
        if self._renew is None:
            raise error
        engine.restarts.failed(f"rollout[{engine.number}]", error)
        self._warn(f"rollout[{engine.number}] is replaced and its unfinished prompts asked again: {error}")
        engine.actor = self._renew(engine.number)
        engine.ready = engine.actor.ready.remote()
        self._keep_for_others()

    def worked(self, engine: _Engine, actor: object) -> None:
        """A group of `actor` is here."""
        if engine.actor is actor:
            engine.restarts.worked()


def _name(share: _Share, request: Request) -> str:
    return f"rollout[{share.engine.number}] generating at step {request.step}"
