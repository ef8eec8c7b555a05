"""Ctrl-C and SIGTERM in mid-run: the first asks to stop after the step at hand, the second stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Catches the signals for the length of a `with` block; does nothing off the main thread."""

    def __init__(self, say: Callable[[str], None]):
        self.requested = False
        self._say = say
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
            raise KeyboardInterrupt
        self.requested = True
        self._say("stopping after this step, with a checkpoint; once more to stop at once")
