"""What each way of scaling mixed rewards does to learning, on the quickstart's mixture.

    python benchmarks/reward_scales.py [--steps 80] [--seed 0] [--svg docs/reward_scales.svg]

Trains from one warm start once for each setting, same prompts and seeds, evaluates before and after on the held-out
split, prints the paired differences by type, and draws them. Runs are kept under runs/reward_scales and continue
where they were stopped.
"""

from __future__ import annotations

import argparse
from html import escape
from pathlib import Path

from paired import MODES, TYPES, By, cells, difference, print_head, print_row, said, train

SETTINGS = {
    "group": ("algo.std_floor=0",),
    "group, floor 0.05": ("algo.std_floor=0.05",),
    "batch": ("algo.scale_rewards=batch", "algo.std_floor=0"),
    "none": ("algo.scale_rewards=none",),
    "normalize_then_sum": ("algo.multi_objective_aggregation=normalize_then_sum", "algo.std_floor=0"),
}
LABELS, PANEL, TOP, ROW = 150, 190, 32, 38  # pixels of the figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--svg", type=Path, default=Path("docs/reward_scales.svg"))
    options = parser.parse_args()
    results = {name: change(name, options.steps, options.seed) for name in SETTINGS}
    print_table(results, options.steps)
    options.svg.write_text(figure(results), encoding="utf-8")
    print(f"drawn: {options.svg}")


def change(name: str, steps: int, seed: int) -> By:
    """Held-out task rewards after minus before, of one setting trained to `steps`."""
    folder = Path("runs/reward_scales") / f"{''.join(c if c.isalnum() else '_' for c in name)}-{seed}"
    train(folder, seed, steps, *SETTINGS[name])
    return difference((folder, 0), (folder, steps))


def print_table(results: dict[str, By], steps: int) -> None:
    """The changes by type, a row a setting and mode."""
    print()
    print_head(f"{steps} steps", "mode", *TYPES)
    for name, found in results.items():
        for mode in MODES:
            print_row(name, mode, *map(said, cells(found, mode)))


def figure(results: dict[str, By]) -> str:
    """One panel a type, one row a setting: change ± two standard errors, sampled filled, greedy hollow."""
    height = TOP + ROW * len(results) + 24
    labels = "".join(
        f'<text x="{LABELS - 10}" y="{TOP + ROW * row + 22}" text-anchor="end">{escape(name)}</text>'
        for row, name in enumerate(results)
    )
    panels = "".join(_panel(kind, LABELS + number * (PANEL + 16), results) for number, kind in enumerate(TYPES))
    width = LABELS + len(TYPES) * (PANEL + 16)
    style = (
        "text{font:12px sans-serif;fill:#333}.title{font-weight:bold}.tick{font-size:11px;fill:#777}"
        "line{stroke:#1f77b4;stroke-width:2}.zero{stroke:#bbb;stroke-width:1}circle{fill:#1f77b4;stroke:#1f77b4}"
        ".greedy{stroke:#ff7f0e}circle.greedy{fill:white}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"><style>{style}</style>'
        f'<rect width="{width}" height="{height}" fill="white"/>{labels}{panels}</svg>\n'
    )


def _panel(kind: str, left: int, results: dict[str, By]) -> str:
    found = [(row, mode, each[kind, mode]) for row, each in enumerate(results.values()) for mode in MODES]
    ends = [change.difference + sign * 2 * change.standard_error for _, _, change in found for sign in (-1, 1)]
    lowest, highest = min(0.0, *ends), max(0.0, *ends)

    def place(value: float) -> float:
        return left + 4 + (PANEL - 8) * (value - lowest) / (highest - lowest)

    bottom = TOP + ROW * len(results)
    parts = [
        f'<text class="title" x="{left}" y="20">{kind}</text>',
        f'<line class="zero" x1="{place(0):.1f}" x2="{place(0):.1f}" y1="{TOP}" y2="{bottom}"/>',
        f'<text class="tick" x="{place(0):.1f}" y="{bottom + 15}" text-anchor="middle">0</text>',
        f'<text class="tick" x="{place(highest):.1f}" y="{bottom + 15}" text-anchor="end">{highest:+.2g}</text>',
    ]
    for row, mode, change in found:
        y = TOP + ROW * row + (13 if mode == "sampled" else 25)
        low, high = (place(change.difference + sign * 2 * change.standard_error) for sign in (-1, 1))
        parts.append(f'<line class="{mode}" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="{mode}" cx="{place(change.difference):.1f}" cy="{y}" r="4"/>')
    return "".join(parts)


if __name__ == "__main__":
    main()
