"""What a scored file says as a whole: sums by source and type, flat groups, the lowest samples."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mixed_r1_ray.rewards.response_rows import ResponseRow
from mixed_r1_ray.rewards.sample import RewardSample
from mixed_r1_ray.types import RewardBreakdown

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(slots=True)
class Tally:
    """Sums over the samples of one source and type."""

    samples: int = 0
    unscored: int = 0
    without_answer: int = 0
    total: float = 0.0  # this and the next two: sums over scored samples
    task: float = 0.0
    format: float = 0.0
    groups: int = 0  # of two samples or more
    flat_groups: int = 0  # whose scored samples all have the same total, or that have less than two

    def __iadd__(self, other: Tally) -> Tally:
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


@dataclass(frozen=True, slots=True)
class Low:
    """A sample with a low total, to be shown."""

    where: str
    sample: RewardSample
    breakdown: RewardBreakdown


@dataclass(slots=True)
class Agreement:
    """How the totals compare with those that the file carries."""

    samples: int = 0
    different: int = 0
    first: str = ""  # where, and the two totals


@dataclass(slots=True)
class ScoreSummary:
    """Takes rows as they are scored; does not grow with the file. num_lowest: how many Lows to keep."""

    num_lowest: int = 0
    bad_rows: int = 0
    tallies: dict[tuple[str, str], Tally] = field(default_factory=dict)
    agreement: Agreement = field(default_factory=Agreement)
    _lowest: list[tuple[float, int, Low]] = field(
        default_factory=list
    )  # a heap with the highest of them on top
    _group: tuple | None = None  # the one that may go on with the next row
    _group_kind: tuple[str, str] = ("", "")
    _group_totals: list[float | None] = field(default_factory=list)
    _order: int = 0

    def add(self, where: str, row: ResponseRow, breakdowns: Sequence[RewardBreakdown]) -> None:
        """One scored row. where: `row 17`."""
        kind = (row.samples[0].source, row.samples[0].reward_type)
        if row.group != self._group:
            self.close_group()
            self._group, self._group_kind = row.group, kind
        self._group_totals += [breakdown.total for breakdown in breakdowns]
        tally = self.tallies.setdefault(kind, Tally())
        for sample, breakdown in zip(row.samples, breakdowns, strict=True):
            tally.samples += 1
            tally.without_answer += sample.answer is None
            if breakdown.total is None:
                tally.unscored += 1
                continue
            tally.total += breakdown.total
            tally.task += breakdown.task
            tally.format += breakdown.format
            self._keep_if_low(where, sample, breakdown)
        if row.logged_totals is not None:
            self._compare(where, row.logged_totals, breakdowns)

    def close_group(self) -> None:
        """The last group has no more rows. To be called after the last row."""
        totals, self._group_totals, self._group = self._group_totals, [], None
        if len(totals) > 1:
            scored = [total for total in totals if total is not None]
            tally = self.tallies[self._group_kind]
            tally.groups += 1
            tally.flat_groups += len(scored) < 2 or max(scored) - min(scored) <= 1e-9

    def lowest(self) -> list[Low]:
        """The samples with the lowest totals, lowest first; of equals the earlier."""
        return [low for _, _, low in sorted(self._lowest, key=lambda entry: (-entry[0], -entry[1]))]

    def _keep_if_low(self, where: str, sample: RewardSample, breakdown: RewardBreakdown) -> None:
        self._order += 1
        entry = (-breakdown.total, -self._order, Low(where, sample, breakdown))
        if len(self._lowest) < self.num_lowest:
            heapq.heappush(self._lowest, entry)
        elif self._lowest and entry[:2] > self._lowest[0][:2]:
            heapq.heapreplace(self._lowest, entry)

    def _compare(
        self, where: str, logged: Sequence[float | None], breakdowns: Sequence[RewardBreakdown]
    ) -> None:
        for before, now in zip(logged, breakdowns, strict=True):
            self.agreement.samples += 1
            same = before is None and now.total is None or (
                before is not None and now.total is not None and abs(before - now.total) <= 1e-6
            )  # fmt: skip
            if not same:
                self.agreement.different += 1
                self.agreement.first = self.agreement.first or f"{where}: {before} there, {now.total} here"


def summary_table(summary: ScoreSummary, title: str) -> Table:
    """Samples, mean rewards of the scored ones, and what to be wary of, by source and type."""
    from rich import box
    from rich.table import Table

    # narrow enough for a terminal of 80 columns
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=0, show_edge=False)
    table.add_column("source", overflow="fold")
    table.add_column("type", no_wrap=True)
    for heading in ("samples", "total", "task", "format", "unscored", "no\nanswer", "flat\ngroups"):
        table.add_column(heading, justify="right")
    everything = Tally()
    for (source, kind), tally in sorted(summary.tallies.items()):
        table.add_row(source or "–", kind, *_cells(tally))
        everything += tally
    table.add_section()
    table.add_row("all", "", *_cells(everything), style="bold")
    return table


def _cells(tally: Tally) -> list[str]:
    scored = tally.samples - tally.unscored
    means = [_share(value, scored, ".3f") for value in (tally.total, tally.task, tally.format)]
    without = _share(tally.without_answer, tally.samples, ".1%")
    flat = _share(tally.flat_groups, tally.groups, ".1%")
    return [f"{tally.samples:,}", *means, f"{tally.unscored:,}", without, flat]


def _share(part: float, whole: int, form: str) -> str:
    return f"{part / whole:{form}}" if whole else "–"
