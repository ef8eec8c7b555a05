"""The data card's charts: SVG files that stand alone, legible on a light and on a dark page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

COLOURS = {
    "matching": "#3f7fc4",
    "chart": "#cf7f1f",
    "iou": "#2f9d69",
    "open_ended": "#9164c4",
    "math": "#c0639c",
    "counting": "#22909a",
    "custom": "#9a7c2c",
}
WIDTH, HEIGHT = 480, 240
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 34, 46
NUM_BINS = 24
_STYLE = (
    "text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,Arial,sans-serif;fill:#59636b}"
    ".title{font-size:13px;font-weight:600}.grid{stroke:#88929a;stroke-opacity:.3}"
    "@media(prefers-color-scheme:dark){text{fill:#a9b3bb}}"
)


def pie(counts: Mapping[str, int], title: str) -> str:
    """A ring of the counts with a legend that names number and share."""
    total = sum(counts.values())
    centre_x, centre_y, radius, thickness = 120, 130, 80, 34
    body, turn = [_title(title)], 0.0
    around = 2 * math.pi * radius
    for place, (name, count) in enumerate(counts.items()):
        share = count / total if total else 0.0
        body.append(
            f'<circle cx="{centre_x}" cy="{centre_y}" r="{radius}" fill="none" stroke="{COLOURS[name]}" '
            f'stroke-width="{thickness}" stroke-dasharray="{share * around:.2f} {around:.2f}" '
            f'transform="rotate({360 * turn - 90:.2f} {centre_x} {centre_y})"/>'
        )
        y = 130 + 22 * (place - (len(counts) - 1) / 2)
        body.append(f'<rect x="248" y="{y - 9:.0f}" width="11" height="11" rx="2" fill="{COLOURS[name]}"/>')
        body.append(f'<text x="268" y="{y:.0f}">{escape(name)}: {count:,} ({share:.1%})</text>')
        turn += share
    body.append(
        f'<text class="title" x="{centre_x}" y="{centre_y + 5}" text-anchor="middle">{total:,}</text>'
    )
    return _svg(body, f"{title}: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))


def histogram(
    values: Mapping[str, np.ndarray], title: str, unit: str, limits: tuple[float, float] | None = None
) -> str:
    """Counts in equal bins, reward types stacked. '' where there are no values.

    values: numbers (n,) by reward type. limits: of fractions; None counts whole numbers from 0 to beyond the
    99th percentile, and what lies above in the last bin, as the axis says.
    """
    everything = np.concatenate([*values.values()]) if values else np.empty(0)
    if not len(everything):
        return ""
    whole = limits is None
    low, high = limits or (
        0,
        int(np.quantile(everything, 0.99)) + 1,
    )  # whole numbers: `high` is the first outside
    bins = min(NUM_BINS, high) if whole else NUM_BINS
    high = bins * math.ceil(high / bins) if whole else high
    above = int((everything >= high).sum()) if whole else 0
    counts = {
        kind: np.histogram(np.clip(of_kind, low, high), bins=bins, range=(low, high))[0]
        for kind, of_kind in values.items()
    }
    top = _ceiling(int(sum(counts.values()).max()))
    body = [_title(title), *_count_axis(top)]
    width, floor = (WIDTH - LEFT - RIGHT) / bins, np.zeros(bins)
    for kind, of_kind in counts.items():
        for place in np.flatnonzero(of_kind):
            height = _height(of_kind[place], top)
            y = HEIGHT - BOTTOM - _height(floor[place], top) - height
            start, end = (low + (high - low) * edge / bins for edge in (place, place + 1))
            end -= whole
            body.append(
                f'<rect x="{LEFT + place * width + 0.5:.1f}" y="{y:.1f}" width="{width - 1:.1f}" '
                f'height="{height:.1f}" fill="{COLOURS[kind]}">'
                f"<title>{kind}, {start:g} to {end:g} {unit}: {of_kind[place]:,}</title></rect>"
            )
        floor += of_kind
    body += _value_axis(
        low, high, f"{unit} (in the last bar {above:,} of {high:,} and more)" if above else unit
    )
    return _svg(body, f"{title}: {len(everything):,} records, median {np.median(everything):g} {unit}")


def _count_axis(top: int) -> list[str]:
    parts = []
    for tick in sorted({0, top // 2, top}):
        y = HEIGHT - BOTTOM - _height(tick, top)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{tick:,}</text>')
    return parts


def _value_axis(low: float, high: float, label: str) -> list[str]:
    span, middle = WIDTH - LEFT - RIGHT, (low + high) / 2
    middle = round(middle) if high - low > 2 else middle
    parts = [
        f'<text x="{LEFT + span * (tick - low) / (high - low):.1f}" y="{HEIGHT - BOTTOM + 17}" '
        f'text-anchor="{anchor}">{tick:g}</text>'
        for tick, anchor in ((low, "start"), (middle, "middle"), (high, "end"))
    ]
    return [
        *parts,
        f'<text x="{LEFT + span / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(label)}</text>',
    ]


def _height(count: float, top: int) -> float:
    return (HEIGHT - TOP - BOTTOM) * count / top


def _ceiling(value: int) -> int:
    """An even number with one or two digits that count, not below `value`: a tick stands at its half too."""
    power = 10 ** int(math.log10(max(value, 1)))
    whole = (step * power for step in (1, 1.2, 1.6, 2, 3, 4, 6, 8, 10))
    return next(int(top) for top in whole if top >= value and top % 2 == 0)


def _title(text: str) -> str:
    return f'<text class="title" x="14" y="20">{escape(text)}</text>'


def _svg(body: Sequence[str], description: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" role="img" aria-label="{escape(description)}">'
        f"<style>{_STYLE}</style>{''.join(body)}</svg>\n"
    )
