"""How far a long piece of work is: a bar with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mixed_r1_ray.runtime.progress import duration

PLAIN_INTERVAL_S = 10.0  # between plain lines


@contextmanager
def counting(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a function to call with the number done and the number in all; it writes to stderr.

    The time left is told by the pace since the first call: what was done before it costs nothing now.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        yield _PlainLines(what, unit)
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"{what} ({unit})", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _PlainLines:
    def __init__(self, what: str, unit: str):
        self.what, self.unit = what, unit
        self.began: tuple[float, int] | None = None
        self.spoken = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        self.began = self.began or (now, done)
        if done < total and now - self.spoken < PLAIN_INTERVAL_S:
            return
        self.spoken = now
        start, already = self.began
        after = ""
        if done == total > already:
            after = f", {duration(now - start)}"
        elif done > already:
            after = f", {duration((now - start) / (done - already) * (total - done))} left"
        print(f"{self.what}: {done:,} of {total:,} {self.unit}{after}", file=sys.stderr, flush=True)
