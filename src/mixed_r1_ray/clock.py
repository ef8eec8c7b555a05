"""Wall time of a step, by phase."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Starts when it is made. Phases follow one another; what lies between them is idle time."""

    def __init__(self):
        self.started = time.perf_counter()
        self.phases: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.phases[name] = self.phases.get(name, 0.0) + time.perf_counter() - begun

    def metrics(self) -> dict[str, float]:
        """`time/step_s`, `time/<phase>_s` and `time/idle_s`."""
        total = time.perf_counter() - self.started
        times = {f"time/{name}_s": seconds for name, seconds in self.phases.items()}
        return times | {"time/step_s": total, "time/idle_s": total - sum(self.phases.values())}
