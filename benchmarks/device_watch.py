"""Bytes in use on the first GPU, whichever process holds them, at their highest in each phase of a loop."""

from __future__ import annotations

import threading
from collections.abc import Callable

EVERY_S = 0.02


class DeviceWatch:
    """Looks every EVERY_S seconds while the block runs. peaks: bytes by phase; empty where there is no GPU."""

    def __init__(self, phase: Callable[[], str]):
        self.peaks: dict[str, int] = {}
        self._phase, self._stop = phase, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> DeviceWatch:
        import torch

        if torch.cuda.is_available():
            self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _watch(self) -> None:
        import torch

        while not self._stop.wait(EVERY_S):
            free, total = torch.cuda.mem_get_info()
            self.note(self._phase(), total - free)

    def note(self, phase: str, used: int) -> None:
        self.peaks[phase] = max(self.peaks.get(phase, 0), used)
