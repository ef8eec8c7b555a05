"""Waiting for actors. Every wait has a name and a deadline; every failure says who, doing what."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.interrupt import raise_if_interrupted

POLL_S = 0.05


class ActorFailure(UserError):
    """An actor died, did not answer in time, or raised something unforeseen."""


class ActorDied(ActorFailure):
    """An actor's process is gone or cannot be reached; Ray may be restarting it."""


def fetch(refs: Any, *, what: str, deadline_s: float) -> Any:
    """`ray.get` of one reference or a list of them.

    Raises the UserError that an actor raised as it was raised there, and ActorFailure, naming `what`, for all
    else: ActorDied where the process is gone.
    """
    raise_if_interrupted()
    try:
        return ray.get(refs, timeout=deadline_s)
    except GetTimeoutError:
        raise ActorFailure(f"{what}: no answer within {deadline_s:g} s") from None
    except RayTaskError as error:
        raise _remote_cause(error, what) from None
    except RayError as error:
        raise _death(error, what) from None


def work_until_made(refs: Sequence[Any], work: Callable[[], None], *, deadline_s: float) -> float:
    """Calls `work` every 50 ms until all of `refs` are made, one has failed or the deadline is over.

    Returns the seconds that are left. `fetch` then says how it went.
    """
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        raise_if_interrupted()
        try:
            ray.get(list(refs), timeout=POLL_S)
            break
        except GetTimeoutError:
            work()
        except RayError:
            break
    return max(0.0, deadline - time.monotonic())


def wait_for(refs: Sequence[Any], *, what: str, deadline_s: float) -> None:
    """Waits until all of `refs` are made, without bringing them here."""
    raise_if_interrupted()
    if not refs:
        return
    done, missing = ray.wait(list(refs), num_returns=len(refs), timeout=deadline_s, fetch_local=False)
    if missing:
        raise ActorFailure(
            f"{what}: {len(missing)} of {len(refs)} answers missing after {deadline_s:g} s"
        )


def _remote_cause(error: RayTaskError, what: str, failure: type[ActorFailure] = ActorFailure) -> UserError:
    cause = error.cause
    if isinstance(cause, UserError):
        return cause
    return failure(f"{what}: {type(cause).__name__}: {cause}\n{error}")


def _death(error: RayError, what: str) -> UserError:
    """An actor that is gone. Where its constructor raised, Ray's error has that one as its only argument."""
    if error.args and isinstance(error.args[0], RayTaskError):
        return _remote_cause(error.args[0], what, ActorDied)
    failure = ActorDied if isinstance(error, RayActorError) else ActorFailure
    return failure(f"{what}: {type(error).__name__}: {str(error).strip().splitlines()[0]}")
