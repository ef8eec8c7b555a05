"""What a run says while it goes: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mixed_r1_ray.runtime.evaluation_table import as_text
from mixed_r1_ray.types import REWARD_TYPES

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PLAIN_INTERVAL_S = 10.0  # between plain lines of one counted phase
RECENT_STEPS = 20  # from which the time left is told


class Progress:
    """Phases (`starting 4 engines`, `warm start 120/600`), steps, tables and warnings.

    On a terminal the last line is live (spinner, bar, time left) and a step's line is printed above it;
    elsewhere every step is one plain line and a counted phase speaks at most every ten seconds. Use as a
    context manager.
    """

    def __init__(self, max_steps: int, first_step: int = 1, console: Console | None = None) -> None:
        from rich.console import Console

        self.console = console or Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._max_steps = max_steps
        self._finished = first_step - 1
        self._marks: deque[float] = deque(maxlen=RECENT_STEPS + 1)
        self._phase = ("", 0.0)
        self._live = _LiveLine(self.console) if self.console.is_terminal else None

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def start_steps(self, first_step: int) -> None:
        """Steps begin with `first_step`, which may be later than 1 in a continued run."""
        self._finished = first_step - 1
        self._marks.clear()

    def phase(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Says what is going on, with a count where there is one."""
        counted = f"{text} {done}/{total}" if total else text
        if self._live is not None:
            self._live.show(text, done, total)
            if not total:
                self.console.print(f"[dim]{_escaped(text)}[/dim]")
            return
        now, (previous, spoken) = time.monotonic(), self._phase
        if text != previous or (total and (done == total or now - spoken >= PLAIN_INTERVAL_S)):
            self.print(counted)
            self._phase = (text, now)

    def step(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Prints the line of a finished step."""
        if not self._marks:  # what came before the first step says nothing about the others
            self._marks.append(time.monotonic() - (metrics.get("time/step_s") or 0.0))
        self._marks.append(time.monotonic())
        self._finished = step
        line = step_line(step, self._max_steps, metrics, self.seconds_left())
        self.print(line)
        self._phase = ("", 0.0)
        if self._live is not None:
            self._live.show(f"training, {duration(self.seconds_left())} left", step, self._max_steps)

    def seconds_left(self) -> float:
        """Steps to go times the mean wall time of the recent ones, evaluations between them included."""
        if len(self._marks) < 2:
            return 0.0
        pace = (self._marks[-1] - self._marks[0]) / (len(self._marks) - 1)
        return pace * max(self._max_steps - self._finished, 0)

    def print(self, text: str) -> None:
        """Prints a line as it stands."""
        self.console.print(text, markup=False, emoji=False)

    def table(self, table: Table) -> None:
        """Prints a table, without colours and lines where there is no terminal."""
        if self._live is not None:
            self.console.print(table)
        else:
            self.print(as_text(table))

    def warning(self, text: str) -> None:
        """Prints a warning; saying it once is the WarningLog's business."""
        if self._live is not None:
            self.console.print(f"[yellow]warning:[/yellow] {_escaped(text)}", emoji=False)
        else:
            self.print(f"warning: {text}")


def step_line(step: int, max_steps: int, metrics: Mapping[str, float | None], seconds_left: float) -> str:
    """`step  12/160  reward 0.71  matching 0.55 …  1,234 tok/s  1.9 s  4m40s left`."""
    parts = [f"step {step:>{len(str(max_steps))}}/{max_steps}"]
    names = {"reward/mean": "reward"} | {f"reward/{kind}": kind for kind in (*REWARD_TYPES, "format")}
    parts += [f"{short} {_number(metrics[name])}" for name, short in names.items() if name in metrics]
    if metrics.get("throughput/tokens_per_s") is not None:
        parts.append(f"{metrics['throughput/tokens_per_s']:,.0f} tok/s")
    if metrics.get("time/step_s") is not None:
        parts.append(f"{metrics['time/step_s']:.1f} s")
    parts.append(f"{duration(seconds_left)} left")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """`8s`, `4m40s`, `2h05m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


class _LiveLine:
    """The terminal's last line: spinner, what is going on, and a bar where there is a count."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            refresh_per_second=4,
        )
        self._task = self._bar.add_task("starting", total=None, count="")

    def start(self) -> None:
        self._bar.start()

    def stop(self) -> None:
        self._bar.stop()

    def show(self, text: str, done: int | None, total: int | None) -> None:
        count = f"{done}/{total}" if total else ""
        self._bar.update(self._task, description=text, completed=done or 0, total=total, count=count)
