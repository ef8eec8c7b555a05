"""Runs one Ray task a shard, a few at a time, on this machine or on the cluster that RAY_ADDRESS names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from mixed_r1_ray.config import Config
from mixed_r1_ray.environment import cluster_address, joining, prepare_environment
from mixed_r1_ray.errors import UserError

OBJECT_STORE_BYTES = 256 * 2**20  # tasks are told rows of text; pictures go from file to file
PER_CPU = 2  # tasks under way a CPU: the next one waits at the worker
DEADLINE_S = 3600.0  # for any task to end


@contextmanager
def ray_for_data(num_cpus: int | None = None) -> Iterator[None]:
    """A connection to Ray for the length of the block; one that was started here ends with it.

    num_cpus: of a Ray that is started here; all of the machine's by default. Tests run it inside their own.
    """
    config = Config()
    prepare_environment(config)
    import logging

    import ray

    if ray.is_initialized():
        yield
        return
    address = cluster_address(config)
    local = {
        "address": "local",
        "num_cpus": num_cpus,
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
        "_node_ip_address": "127.0.0.1",
    }
    chosen = joining(address) if address else local
    try:
        ray.init(**chosen, log_to_driver=False, logging_level=logging.ERROR)
    except (ValueError, ConnectionError) as error:
        raise UserError(
            f"Ray: {'cannot be joined at ' + address if address else 'does not start here'}: {error}"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def run_tasks(function: Callable, calls: Iterable[tuple], what: str) -> Iterator[Any]:
    """function(*call) of every call, as they end; no more are under way than the CPUs keep busy.

    A task whose process dies is run again by Ray. Raises the UserError that a task raised, and ActorFailure
    for all else that goes wrong in one.
    """
    import ray

    from mixed_r1_ray.remote import fetch

    remote = ray.remote(function)
    most = max(1, int(PER_CPU * ray.cluster_resources().get("CPU", 1)))
    pending: list = []
    for call in calls:
        if len(pending) >= most:
            done, pending = _one_done(pending, what)
            yield fetch(done, what=what, deadline_s=DEADLINE_S)
        pending.append(remote.remote(*call))
    while pending:
        done, pending = _one_done(pending, what)
        yield fetch(done, what=what, deadline_s=DEADLINE_S)


def _one_done(pending: list, what: str) -> tuple[Any, list]:
    import ray

    done, waiting = ray.wait(pending, num_returns=1, timeout=DEADLINE_S, fetch_local=False)
    if not done:
        raise UserError(f"{what}: none of {len(pending)} tasks has ended in {DEADLINE_S:g} s")
    return done[0], waiting
