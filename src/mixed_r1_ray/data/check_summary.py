"""What a check has found: counts, the first rows of each kind of fault, and the table that shows them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from mixed_r1_ray.data.record_check import Fault

NAMED = 5  # rows a kind of fault


@dataclass
class Summary:
    """Counts of records and faults; of each kind of fault the first few."""

    sources: Counter = field(default_factory=Counter)
    faulty: Counter = field(default_factory=Counter)  # source -> rows
    kinds: Counter = field(default_factory=Counter)  # (source, field) -> rows
    named: dict[tuple[str, str], list[Fault]] = field(default_factory=dict)

    def add_fault(self, fault: Fault) -> None:
        self.faulty[fault.source] += fault.num_rows
        self.kinds[fault.source, fault.field] += fault.num_rows
        self._name(fault)

    def merge(self, later: Summary) -> None:
        """Adds what was found further on."""
        for mine, more in zip(
            (self.sources, self.faulty, self.kinds), (later.sources, later.faulty, later.kinds), strict=True
        ):
            mine.update(more)
        for faults in later.named.values():
            for fault in faults:
                self._name(fault)

    def _name(self, fault: Fault) -> None:
        named = self.named.setdefault((fault.source, fault.field), [])
        if len(named) < NAMED:
            named.append(fault)


def print_summary(summary: Summary, title: str) -> None:
    """Prints records and faults by source, then each kind of fault with the first rows that have it."""
    from rich.markup import escape
    from rich.table import Table

    from mixed_r1_ray.runtime.evaluation_table import as_text

    fields = sorted({name for _, name in summary.kinds})
    table = Table("source")
    for name in ("records", "good", *fields):
        table.add_column(name, justify="right")
    for source, count in sorted(summary.sources.items()):
        by_field = (f"{summary.kinds[source, name]:,}" for name in fields)
        table.add_row(
            escape(source) or "(unknown)", f"{count:,}", f"{count - summary.faulty[source]:,}", *by_field
        )
    print(f"{title}\n{as_text(table)}")
    for (source, name), count in sorted(summary.kinds.items()):
        named = summary.named[source, name]
        print(f"{source or '(unknown)'}, {name}: {f'{count:,} records' if count else 'a file'}")
        print("\n".join(f"  {_describe(fault)}" for fault in named))
        if count > sum(fault.num_rows for fault in named):
            print("  …")


def _describe(fault: Fault) -> str:
    place = fault.file if fault.row is None else f"{fault.file}, row {fault.row}"
    return f"{place}{f' ({fault.id})' if fault.id else ''}: {fault.reason}"
