"""The inside of a KillableProcess: loads a target, then answers items until it is killed.

    python -P -m mixed_r1_ray.rewards.process_child CONNECTION ALIVE        (two open file descriptors)

Messages are JSON. {"target": […]} is answered by {"form": …} or {"failed": why}; {"items": […]} by one
{"item": place, "value": …, "detail": …, "failure": null | "raised" | "overran"} each, in the order they are
done.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import sys
import threading
from multiprocessing.connection import Connection

from mixed_r1_ray.errors import UserError


def main(connection: Connection) -> None:
    """Serves until the other end closes."""
    target = _receive(connection)["target"]
    try:
        form, answer = _load(target)
    except BaseException as error:  # an import may raise SystemExit, too
        failed = str(error) if isinstance(error, UserError) else f"{' '.join(target)}: {error!r}"
        _send(connection, {"failed": failed})
        return
    _send(connection, {"form": form})
    me = os.getpid()

    def reply(place: int, value: float | None, detail: str = "", failure: str | None = None) -> None:
        if os.getpid() != me:
            os._exit(0)  # the target forked, and this is the copy
        _send(connection, {"item": place, "value": value, "detail": detail, "failure": failure})

    while True:
        message = _receive(connection)
        answer(message["items"], reply, message["one_by_one"])


def die_with_parent(alive: int) -> None:
    """Has the kernel kill this process group when the other end of a pipe closes: when the parent is gone.

    A thread that waits for it would not do: a hanging C function (a regular expression, a large power) keeps
    the interpreter lock. Where the system cannot do it (not Linux), a thread is what there is.
    """
    if not hasattr(fcntl, "F_SETSIG"):
        threading.Thread(target=_die_at_end_of, args=(alive,), daemon=True).start()
        return
    fcntl.fcntl(alive, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(alive, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(alive, fcntl.F_SETFL, fcntl.fcntl(alive, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([alive], [], [], 0)[0]:  # it was gone before
        os._exit(1)


def _die_at_end_of(alive: int) -> None:
    os.read(alive, 1)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _load(target: list[str]):
    if target[0] == "math":
        from mixed_r1_ray.rewards import mathematics

        return "one", mathematics.load()
    from mixed_r1_ray.rewards import custom_function

    return custom_function.load(target[1], timeout_s=float(target[2]))


def _receive(connection: Connection) -> dict:
    try:
        return json.loads(connection.recv_bytes())
    except EOFError:
        sys.exit()


def _send(connection: Connection, message: dict) -> None:
    connection.send_bytes(json.dumps(message).encode())


if __name__ == "__main__":
    die_with_parent(int(sys.argv[2]))
    main(Connection(int(sys.argv[1])))
