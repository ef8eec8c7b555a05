"""The report's charts, as SVG that takes its colours from the page's style sheet (classes c-<name>)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from statistics import fmean

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 10, 24
BESIDE = 3.0  # pixels from its step, so that two markers of a step do not cover each other
MAX_POINTS = 240  # of a line; longer ones are averaged in equal bins of steps

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Marker:
    """A dot at a step with an interval around it: an evaluation and its two standard errors."""

    step: float
    value: float
    spread: float
    hollow: bool
    title: str


@dataclass(frozen=True, slots=True)
class Series:
    """One line: (step, value) points in order of steps, and the class that colours it."""

    label: str
    points: Sequence[Point]
    css: str
    markers: Sequence[Marker] = field(default=())


@dataclass(frozen=True, slots=True)
class Axis:
    """A range of values laid over a range of pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def line_chart(series: Sequence[Series], log: bool = False) -> str:
    """Lines over steps: each point faint, their moving mean strong; a tooltip names the values at a step.

    With `log`, values that are not positive are left out. Returns '' where there is nothing to draw.
    """
    thinned = [_thin([point for point in line.points if not log or point[1] > 0]) for line in series]
    markers = [marker for line in series for marker in line.markers]
    values = [value for points in thinned for _, value in points]
    values += [
        edge for marker in markers for edge in (marker.value - marker.spread, marker.value + marker.spread)
    ]
    steps = [step for points in thinned for step, _ in points] + [marker.step for marker in markers]
    if not values:
        return ""
    x = _step_axis(steps)
    y = _log_axis(values) if log else _value_axis(min(values), max(values))
    body = [_grid(x, y)]
    for line, points in zip(series, thinned, strict=True):
        if len(points) > 8:
            body.append(f'<path class="raw {line.css}" d="{_path(points, x, y)}"/>')
        body.append(f'<path class="line {line.css}" d="{_path(smoothed(points), x, y)}"/>')
    tips = {step: "" for points in thinned for step, _ in points}
    for line, points in zip(series, thinned, strict=True):
        for step, value in points:
            tips[step] += f"\n{line.label} {number(value)}"
    body.append(_tooltips({step: f"step {step:g}{text}" for step, text in tips.items()}, x))
    body.extend(_marker(marker, line.css, x, y) for line in series for marker in line.markers)
    return _svg(body)


def stacked_chart(layers: Sequence[Series], top: float) -> str:
    """Layers stacked over steps (all of one length), lowest first, cut off at `top`."""
    thinned = [_thin(layer.points) for layer in layers]
    if not thinned or not thinned[0]:
        return ""
    steps = [step for step, _ in thinned[0]]
    x, y = _step_axis(steps), _value_axis(0.0, top, padding=0.0)
    body, floor = [], [0.0] * len(steps)
    for layer, points in zip(layers, thinned, strict=True):
        ceiling = [low + value for low, (_, value) in zip(floor, points, strict=True)]
        outline = [(s, min(v, y.high)) for s, v in zip(steps, ceiling, strict=True)]
        outline += [(s, min(v, y.high)) for s, v in zip(reversed(steps), reversed(floor), strict=True)]
        body.append(f'<path class="area {layer.css}" d="{_path(outline, x, y)}Z"/>')
        floor = ceiling
    tips = {
        step: f"step {step:g}: {floor[i]:.2f} s"
        + "".join(
            f"\n{layer.label} {points[i][1]:.2f} s" for layer, points in zip(layers, thinned, strict=True)
        )
        for i, step in enumerate(steps)
    }
    return _svg([*body, _grid(x, y), _tooltips(tips, x)])


def interval_chart(value: float, spread: float, limit: float, css: str) -> str:
    """A difference and its interval about a zero line, on a scale from -limit to limit."""
    axis = Axis(-limit, limit, 2, 98)
    low, high = axis(max(value - spread, -limit)), axis(min(value + spread, limit))
    return (
        f'<svg class="interval" viewBox="0 0 100 16" role="img" '
        f'aria-label="{value:+.3f}, plus or minus {spread:.3f}">'
        f'<line class="zero" x1="50" x2="50" y1="0" y2="16"/>'
        f'<line class="whisker {css}" x1="{low:.1f}" x2="{high:.1f}" y1="8" y2="8"/>'
        f'<circle class="dot {css}" cx="{axis(value):.1f}" cy="8" r="3.4"/></svg>'
    )


def smoothed(points: Sequence[Point]) -> list[Point]:
    """The centred mean over a twelfth of the points, less of it at the ends; short lines stay as they are."""
    reach = len(points) // 24
    return [
        (step, fmean(value for _, value in points[max(i - reach, 0) : i + reach + 1]))
        for i, (step, _) in enumerate(points)
    ]


def number(value: float) -> str:
    """Three significant digits, readable: 0.412, 12.3, 4.1e-07, 12,300."""
    if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e6):
        return f"{value:.1e}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _thin(points: Sequence[Point]) -> list[Point]:
    if len(points) <= MAX_POINTS:
        return list(points)
    size = math.ceil(len(points) / MAX_POINTS)
    bins = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], fmean(value for _, value in group)) for group in bins]


def _step_axis(steps: Sequence[float]) -> Axis:
    low, high = min(steps), max(steps)
    return Axis(low, high if high > low else low + 1, LEFT, WIDTH - RIGHT)


def _value_axis(low: float, high: float, padding: float = 0.06) -> Axis:
    room = (high - low) * padding or (abs(high) or 1.0) * 0.1 * bool(padding)
    floor = max(low - room, 0.0) if low >= 0 else low - room
    return Axis(floor, high + room if high + room > floor else floor + 1, HEIGHT - BOTTOM, TOP)


def _log_axis(values: Sequence[float]) -> Axis:
    positive = [value for value in values if value > 0]
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    return Axis(10.0**low, 10.0 ** max(high, low + 1), HEIGHT - BOTTOM, TOP, log=True)


def _ticks(axis: Axis, most: int, whole: bool = False) -> list[float]:
    if axis.log:
        low, high = round(math.log10(axis.low)), round(math.log10(axis.high))
        stride = math.ceil((high - low) / most)
        return [10.0**power for power in range(low, high + 1, stride)]
    rough = (axis.high - axis.low) / most
    magnitude = 10.0 ** math.floor(math.log10(rough))
    stride = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough * 0.999)
    stride = max(round(stride), 1) if whole else stride
    first = math.ceil(axis.low / stride - 1e-9)
    return [i * stride for i in range(first, math.floor(axis.high / stride + 1e-9) + 1)]


def _grid(x: Axis, y: Axis) -> str:
    parts = []
    for tick in _ticks(y, 4):
        at = y(tick)
        label = f"1e{round(math.log10(tick))}" if y.log else number(tick)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text class="tick" x="{LEFT - 9}" y="{at + 3.5:.1f}" text-anchor="end">{label}</text>'
        )
    for tick in _ticks(x, 5, whole=True):
        parts.append(
            f'<text class="tick" x="{x(tick):.1f}" y="{HEIGHT - 7}" text-anchor="middle">{tick:g}</text>'
        )
    return "".join(parts)


def _path(points: Sequence[Point], x: Axis, y: Axis) -> str:
    return "M" + "L".join(f"{x(step):.1f} {y(value):.1f}" for step, value in points) if points else ""


def _marker(marker: Marker, css: str, x: Axis, y: Axis) -> str:
    at = x(marker.step) + (BESIDE if marker.hollow else -BESIDE)
    low, high = marker.value - marker.spread, marker.value + marker.spread
    kind = "hollow" if marker.hollow else "dot"
    return (
        f"<g><title>{escape(marker.title)}</title>"
        f'<line class="whisker {css}" x1="{at:.1f}" x2="{at:.1f}" y1="{y(low):.1f}" y2="{y(high):.1f}"/>'
        f'<circle class="{kind} {css}" cx="{at:.1f}" cy="{y(marker.value):.1f}" r="3.6"/></g>'
    )


def _tooltips(tips: dict[float, str], x: Axis) -> str:
    steps = sorted(tips)
    if not steps:
        return ""
    edges = [(a + b) / 2 for a, b in zip(steps, steps[1:], strict=False)]
    edge: Callable[[float], float] = lambda step: min(max(x(step), LEFT), WIDTH - RIGHT)  # noqa: E731
    bounds = zip([x.low, *edges], [*edges, x.high], strict=True)
    return "".join(
        f'<rect class="tip" x="{edge(a):.1f}" y="{TOP}" width="{max(edge(b) - edge(a), 0.5):.1f}" '
        f'height="{HEIGHT - TOP - BOTTOM}"><title>{escape(tips[step])}</title></rect>'
        for step, (a, b) in zip(steps, bounds, strict=True)
    )


def _svg(body: Sequence[str]) -> str:
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}">{"".join(body)}</svg>'
