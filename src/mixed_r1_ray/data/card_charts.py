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
WIDTH, HEIGHT = 480, 256
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 54, 46
NUM_BINS, NUM_TICKS = 24, 5
_STYLE = (
    "text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,Arial,sans-serif;fill:#59636b}"
    ".title{font-size:13px;font-weight:600}.small{font-size:11px}.grid{stroke:#88929a;stroke-opacity:.3}"
    "@media(prefers-color-scheme:dark){text{fill:#a9b3bb}}"
)


def pie(counts: Mapping[str, int], title: str) -> str:
    """A ring of the counts with a legend that names number and share."""
    total = sum(counts.values())
    centre_x, centre_y, radius, thickness = 120, 142, 80, 34
    body, turn = [_title(title)], 0.0
    around = 2 * math.pi * radius
    for place, (name, count) in enumerate(counts.items()):
        share = count / total if total else 0.0
        body.append(
            f'<circle cx="{centre_x}" cy="{centre_y}" r="{radius}" fill="none" stroke="{COLOURS[name]}" '
            f'stroke-width="{thickness}" stroke-dasharray="{share * around:.2f} {around:.2f}" '
            f'transform="rotate({360 * turn - 90:.2f} {centre_x} {centre_y})"/>'
        )
        y = centre_y + 22 * (place - (len(counts) - 1) / 2)
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
    """Counts in equal bins, reward types stacked, with a key of their colours. '' where there are no values.

    values: numbers (n,) by reward type. limits: of fractions; None counts whole numbers from 0 to beyond the
    99th percentile, each bar named by the numbers it counts, and what lies above in the last bin, as the axis says.
    """
    values = {kind: values[kind] for kind in sorted(values, key=[*COLOURS].index) if len(values[kind])}
    everything = np.concatenate([*values.values()]) if values else np.empty(0)
    if not len(everything):
        return ""
    whole = limits is None
    # Of whole numbers, `high` is the first outside.
    low, high = limits or (0, int(np.quantile(everything, 0.99)) + 1)
    bins = min(NUM_BINS, high) if whole else NUM_BINS
    size = math.ceil(high / bins) if whole else 0  # numbers that a bar counts
    high = bins * size if whole else high
    above = int((everything >= high).sum()) if whole else 0
    counts = {
        kind: np.histogram(np.clip(of_kind, low, high), bins=bins, range=(low, high))[0]
        for kind, of_kind in values.items()
    }
    top = _ceiling(int(sum(counts.values()).max()))
    body = [_title(title), *_key(list(values)), *_count_axis(top)]
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
    body += _bar_axis(bins, size) if whole else _fraction_axis(low, high)
    label = f"{unit} (in the last bar {above:,} of {high:,} and more)" if above else unit
    body.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(label)}</text>'
    )
    return _svg(body, f"{title}: {len(everything):,} records, median {np.median(everything):g} {unit}")


def _count_axis(top: int) -> list[str]:
    parts = []
    for tick in sorted({0, top // 2, top}):
        y = HEIGHT - BOTTOM - _height(tick, top)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{_short(tick)}</text>')
    return parts


def _short(count: int) -> str:
    """A count that fits left of the axis: 9,500, 12k, 1.6M."""
    if count < 10_000:
        return f"{count:,}"
    return f"{count / 1000:g}k" if count < 1_000_000 else f"{count / 1_000_000:g}M"


def _fraction_axis(low: float, high: float) -> list[str]:
    ticks = np.linspace(low, high, NUM_TICKS)
    anchors = ("start", *["middle"] * (NUM_TICKS - 2), "end")
    span = (WIDTH - LEFT - RIGHT) / (high - low)
    return [
        _tick(LEFT + span * (tick - low), f"{tick:g}", anchor) for tick, anchor in zip(ticks, anchors, strict=True)
    ]


def _bar_axis(bins: int, size: int) -> list[str]:
    """The numbers that a bar counts, below every n-th one."""
    width = (WIDTH - LEFT - RIGHT) / bins
    return [
        _tick(
            LEFT + (place + 0.5) * width,
            f"{place * size:,}" if size == 1 else f"{place * size:,}–{(place + 1) * size - 1:,}",
            "middle",
        )
        for place in range(0, bins, math.ceil(bins / NUM_TICKS))
    ]


def _tick(x: float, text: str, anchor: str) -> str:
    return f'<text class="small" x="{x:.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="{anchor}">{text}</text>'


def _key(kinds: Sequence[str]) -> list[str]:
    """The colours in a row below the title; all seven reward types fit."""
    parts, x = [], 14.0
    for kind in kinds:
        parts.append(f'<rect x="{x:.0f}" y="30" width="9" height="9" rx="2" fill="{COLOURS[kind]}"/>')
        parts.append(f'<text class="small" x="{x + 13:.0f}" y="38">{escape(kind)}</text>')
        x += 22 + 6.7 * len(kind)
    return parts


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
