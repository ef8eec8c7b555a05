"""A process that may hang, crash or be killed without harm to whoever asked it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe

from mixed_r1_ray.errors import UserError

START_TIMEOUT_S = 120.0  # to import what it needs
MAX_LOSSES = 16  # in a row, without an answer between; what is then left of a call is not tried (choice)
Reply = Callable[..., None]  # inside: (place, value, detail="", failure=None), once for each item
_CHILD = "mixed_r1_ray.rewards.process_child"


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one item. failure: None, `raised`, `overran`, `died` or `skipped`; detail says more."""

    value: float | None
    detail: str = ""
    failure: str | None = None


class KillableProcess:
    """Answers items in a process of its own, started at the first call and again whenever it was lost.

    target: what process_child is to load; name: what messages call it. The process is no fork of this one,
    prints to standard error, and ends with this one, however this one ends.
    """

    def __init__(self, target: Sequence[str], name: str):
        self.target, self.name = tuple(target), name
        self._lock = threading.Lock()
        self._running: _Running | None = None

    def start(self) -> None:
        """Starts it where it does not run. Raises UserError, saying why, if it cannot load its target."""
        with self._lock:
            self._start()

    def call(self, items: Sequence, timeout_s: float) -> list[Answer]:
        """One answer an item, in order. timeout_s: for one item; for all, where the target takes all at once.

        The item at which the process hangs or dies is answered so; the others go on in a new process.
        """
        with self._lock:
            return self._call(items, timeout_s)

    def close(self) -> None:
        """Ends the process; the next call would start another."""
        with self._lock:
            self._end()

    def _call(self, items: Sequence, timeout_s: float) -> list[Answer]:
        answers: dict[int, Answer] = {}
        losses, one_by_one = 0, False  # losses in a row
        while len(answers) < len(items):
            waiting = [place for place in range(len(items)) if place not in answers]
            if losses >= MAX_LOSSES:
                reason = f"not tried, for the process was lost {losses} times in a row"
                answers |= {place: Answer(None, reason, "skipped") for place in waiting}
                break
            self._start()
            if not self._running.send(
                {"items": [items[place] for place in waiting], "one_by_one": one_by_one}
            ):
                self._end()  # it died while nothing was asked of it; nobody is to blame
                losses += 1
                continue
            failure = self._receive(waiting, answers, timeout_s)
            if failure is None:
                break
            form = self._running.form
            self._end()
            left = [place for place in waiting if place not in answers]
            losses = losses + 1 if len(left) == len(waiting) else 1
            waiting = left
            if form == "concurrent" and not one_by_one and len(waiting) > 1:
                one_by_one = True  # which of them it was will be seen when they are alone
            else:
                answers |= dict.fromkeys(waiting if form == "batch" else waiting[:1], failure)
        return [answers[place] for place in range(len(items))]

    def _receive(self, waiting: list[int], answers: dict[int, Answer], timeout_s: float) -> Answer | None:
        """Fills in answers as they come; returns what went wrong where they stop coming."""
        running = self._running
        grace = 1.0 if running.form == "concurrent" else 0.0  # there the process keeps the time itself
        for _ in waiting:
            reply = running.receive(timeout_s + grace)
            if reply is None:
                if running.process.poll() is None:
                    return Answer(None, f"took longer than {timeout_s:g} s", "overran")
                return Answer(None, f"its process died ({_cause(running.process.wait())})", "died")
            answers[waiting[reply["item"]]] = Answer(reply["value"], reply["detail"], reply["failure"])
        return None

    def _start(self) -> None:
        if self._running is not None and self._running.process.poll() is None:
            return
        self._end()
        self._running = running = _Running()
        self._finalizer = weakref.finalize(self, running.end)  # also at the exit of the interpreter
        ready = running.receive(START_TIMEOUT_S) if running.send({"target": self.target}) else None
        if ready is None or "failed" in ready:
            overran = running.process.poll() is None
            self._end()
            if ready is not None:
                raise UserError(ready["failed"])
            what = f"took longer than {START_TIMEOUT_S:g} s" if overran else "ended its process"
            raise UserError(f"{self.name}: loading it {what}")
        running.form = ready["form"]

    def _end(self) -> None:
        if self._running is not None:
            self._finalizer()
            self._running = None


class _Running:
    """One life of the process. Its `alive` pipe carries nothing: the kernel kills it when that closes."""

    def __init__(self):
        self._owner = os.getpid()
        self.form = "one"  # how the target takes items: one, batch or concurrent
        self.connection, theirs = Pipe()
        alive_end, self._alive = os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", _CHILD, str(theirs.fileno()), str(alive_end)],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what it prints must not mix with what this process prints
                pass_fds=(theirs.fileno(), alive_end),
                env=os.environ | {"PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path)},
                start_new_session=True,  # Ctrl-C is not its business, and its own children end with it
            )
        finally:
            theirs.close()
            os.close(alive_end)

    def send(self, message: dict) -> bool:
        """False where the process is gone."""
        try:
            self.connection.send_bytes(json.dumps(message).encode())
        except OSError:
            return False
        return True

    def receive(self, timeout_s: float) -> dict | None:
        """The next message; None where none came in time or the process is gone."""
        deadline = time.monotonic() + timeout_s
        try:
            while not self.connection.poll(max(0.0, min(0.1, deadline - time.monotonic()))):
                gone = self.process.poll() is not None  # children of its own may still hold the pipe
                if (gone and not self.connection.poll(0)) or time.monotonic() >= deadline:
                    return None
            return json.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            self._wait_briefly()
            return None

    def end(self) -> None:
        """Kills it with all that it started. May be called again."""
        if self._alive is None or os.getpid() != self._owner:  # a fork of the owner leaves it alone
            return
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.connection.close()
        os.close(self._alive)
        self._alive = None

    def _wait_briefly(self) -> None:
        try:
            self.process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            pass


def _cause(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    return f"signal {signal.Signals(-code).name}" if -code in list(signal.Signals) else f"signal {-code}"
