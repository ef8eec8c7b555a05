"""Waiting for actors. Every wait has a name and a deadline, and can be watched; every failure says who, doing what."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import ObjectLostError, RayActorError, RayError, RayTaskError

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.interrupt import raise_if_interrupted

POLL_S = 0.05
LOOK_S = 1.0

Look = Callable[[str, float, float], None]
_looks: list[Look] = []


class ActorFailure(UserError):
    """An actor died, did not answer in time, or raised something unforeseen."""


class ActorDied(ActorFailure):
    """An actor's process is gone or cannot be reached; Ray may be restarting it."""


class BeyondRepair(ActorFailure):
    """What another actor in the place of one does not mend: the run must go back to its last checkpoint."""


class ObjectLost(BeyondRepair):
    """What an actor had made is gone with the process or the node that kept it."""


class NodeLost(BeyondRepair):
    """A node that actors of the run are on is gone."""


@contextmanager
def watched(look: Look) -> Iterator[None]:
    """Within the block `look(what, seconds waited, deadline_s)` is called every second of every wait.

    What it raises ends the wait.
    """
    _looks.append(look)
    try:
        yield
    finally:
        _looks.remove(look)


def fetch(refs: Any, *, what: str, deadline_s: float, meanwhile: Callable[[], None] | None = None) -> Any:
    """`ray.get` of one reference or a list of them; the first that failed ends it, whatever others are still at.

    meanwhile: called every 50 ms until all are there. Raises the UserError that an actor raised as it was raised there,
    and ActorFailure, naming `what`, for all else: ActorDied where the process is gone, ObjectLost where only its work is.
    """
    several = isinstance(refs, list)
    wanted = refs if several else [refs]
    values, pending = {}, list(dict.fromkeys(wanted))
    for seconds in _turns(what, deadline_s, POLL_S if meanwhile else LOOK_S):
        done, pending = _made(pending, seconds)
        values |= zip(done, _get(done, what, deadline_s), strict=True)
        if not pending:
            return [values[ref] for ref in wanted] if several else values[refs]
        if meanwhile:
            meanwhile()
    raise ActorFailure(f"{what}: no answer within {deadline_s:g} s")


def first_made(refs: Sequence[Any], *, what: str, seconds: float) -> list:
    """Those of `refs`, references or streams of them, that are made or have failed.

    Waits until there is one, for `seconds` at most; none is left out where `seconds` is 0.
    """
    if seconds <= 0:
        return _made(list(refs), 0)[0]
    for turn in _turns(what, seconds, LOOK_S):
        if done := ray.wait(list(refs), num_returns=1, timeout=turn)[0]:
            return done
    return []


def _turns(what: str, deadline_s: float, longest_s: float) -> Iterator[float]:
    """How long to wait at a time, until the deadline is over; whoever watches has a look in between."""
    since = looked = time.monotonic()
    while True:
        raise_if_interrupted()
        left = since + deadline_s - time.monotonic()
        yield max(0.0, min(left, longest_s))
        if left <= longest_s:
            return
        now = time.monotonic()
        if now - looked >= LOOK_S:
            looked = now
            for look in list(_looks):
                look(what, now - since, deadline_s)


def _made(refs: list, seconds: float) -> tuple[list, list]:
    """Which of `refs` are made or have failed, wherever they lie, and which are not."""
    return ray.wait(refs, num_returns=len(refs), timeout=seconds, fetch_local=False) if refs else ([], [])


def _get(done: list, what: str, deadline_s: float) -> list:
    """The values of references that are made. Bringing them here is not done in turns: one cut off begins anew."""
    try:
        return ray.get(done, timeout=deadline_s)
    except RayTaskError as error:
        raise _remote_cause(error, what) from None
    except RayError as error:
        raise _death(error, what) from None


def _remote_cause(error: RayTaskError, what: str, failure: type[ActorFailure] = ActorFailure) -> UserError:
    cause = error.cause
    if isinstance(cause, UserError):
        return cause
    if isinstance(cause, ObjectLostError):
        failure = ObjectLost
    return failure(f"{what}: {type(cause).__name__}: {cause}\n{error}")


def _death(error: RayError, what: str) -> UserError:
    """An actor that is gone. Where its constructor raised, Ray's error has that one as its only argument."""
    if error.args and isinstance(error.args[0], RayTaskError):
        return _remote_cause(error.args[0], what, ActorDied)
    failure = ActorDied if isinstance(error, RayActorError) else ActorFailure
    if isinstance(error, ObjectLostError):
        failure = ObjectLost
    return failure(f"{what}: {type(error).__name__}: {str(error).strip().splitlines()[0]}")
