"""Ctrl-C and SIGTERM: outside the loop they end the run at once, within it after the step at hand."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

SIGNALS = (signal.SIGINT, signal.SIGTERM)


_interrupted = threading.Event()


def catch_interrupts() -> None:
    """Makes SIGTERM, which schedulers send, do what Ctrl-C does, and lets none of them be lost."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, _interrupt)


def raise_if_interrupted() -> None:
    """Raises KeyboardInterrupt where a signal came and what it raised was swallowed, as callbacks and finalizers do."""
    if _interrupted.is_set():
        raise KeyboardInterrupt


def _interrupt(number: int, frame) -> None:
    _interrupted.set()
    raise KeyboardInterrupt


class StopRequest:
    """Keeps the first signal for later, for the length of a `with` block; a second one raises KeyboardInterrupt.

    promise: what to tell the user at the first one. Does nothing off the main thread.
    """

    def __init__(self, say: Callable[[str], None], promise: str):
        self.requested = False
        self._say, self._promise = say, promise
        self._former: dict[int, object] = {}

    def raise_if_requested(self) -> None:
        """KeyboardInterrupt where a stop was asked for: the caller's way out, with everything saved."""
        if self.requested:
            raise KeyboardInterrupt

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame) -> None:
        if self.requested:
            _interrupt(number, frame)
        self.requested = True
        self._say(f"{self._promise}; once more to stop at once")
