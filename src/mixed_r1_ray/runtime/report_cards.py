"""The report's charts of a run: which metrics are drawn, under which words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from mixed_r1_ray.runtime import charts
from mixed_r1_ray.runtime.charts import Marker, Series
from mixed_r1_ray.runtime.evaluation_table import EvalResult, summarise
from mixed_r1_ray.types import REWARD_TYPES

TYPE_LABELS = {
    "matching": "Matching",
    "chart": "Chart",
    "iou": "Grounding",
    "open_ended": "Open-ended",
    "math": "Mathematics",
    "counting": "Counting",
    "custom": "Custom",
}
TYPE_NOTES = {
    "matching": "right or wrong",
    "chart": "right within 5 % on numbers",
    "iou": "overlap with the gold box",
    "open_ended": "BMAS, similarity to the gold text",
    "math": "equal to the gold",
    "counting": "the same number",
    "custom": "what your function returned",
}
TIME_PARTS = ("generate", "reward", "reference", "learn", "sync", "idle")

#: Charts below the rewards: metric, title, what it tells, logarithmic axis.
HEALTH = (
    ("kl/reference", "KL to the reference", "nats a token; how far the policy has moved", False),
    ("entropy", "Entropy", "nats a token; a collapse to 0 ends exploration", False),
    ("grad_norm", "Gradient norm", "before clipping", False),
    ("length/response_tokens", "Response length", "mean tokens", False),
    (
        "length/unfinished_fraction",
        "Unfinished responses",
        "fraction cut at the longest length allowed",
        False,
    ),
    (
        "group/zero_variance_fraction",
        "Groups without signal",
        "fraction whose samples all earned the same",
        False,
    ),
    ("clip/fraction", "Clipped tokens", "fraction whose ratio left the clipping range", False),
    (
        "mismatch/logprob_abs_max",
        "Engine vs. trainer",
        "largest log-probability difference of a token",
        True,
    ),
    ("throughput/tokens_per_s", "Throughput", "response tokens a second of step time", False),
)


@dataclass(frozen=True, slots=True)
class Card:
    """One chart with its words."""

    title: str
    note: str
    chart: str
    css: str = "neutral"
    change: str = ""


@dataclass(frozen=True, slots=True)
class TimePart:
    """What one phase takes of a mean step."""

    name: str
    seconds: float
    share: float


@dataclass(frozen=True, slots=True)
class Timing:
    """The chart of seconds a step, the mean of each phase, and what of the chart is cut off, if anything."""

    chart: str
    parts: Sequence[TimePart]
    mean: float
    cut: str


def reward_cards(steps: Sequence[dict], evaluations: Mapping[int, Sequence[EvalResult]]) -> list[Card]:
    """A chart a reward type with its held-out results, then format and total."""
    held_out = {step: summarise(results) for step, results in evaluations.items()}
    cards = []
    for kind in REWARD_TYPES:
        markers = [marker for step, metrics in held_out.items() for marker in _markers(step, metrics, kind)]
        series = Series(kind, values(steps, f"reward/{kind}"), f"c-{kind}", markers)
        cards.append(_card(TYPE_LABELS[kind], f"task reward: {TYPE_NOTES[kind]}", [series], kind))
    cards.append(
        _card(
            "Format",
            "fraction of samples in the demanded format",
            [Series("format", values(steps, "reward/format"), "c-neutral")],
        )
    )
    cards.append(
        _card(
            "Total",
            "weighted task and format rewards",
            [Series("total", values(steps, "reward/mean"), "c-neutral")],
        )
    )
    return [card for card in cards if card.chart]


def _markers(step: int, metrics: Mapping[str, float], kind: str) -> list[Marker]:
    markers = []
    for mode in ("sampled", "greedy"):
        value, error = metrics.get(f"eval/{mode}/{kind}"), metrics.get(f"eval/{mode}/{kind}/se", 0.0)
        if value is not None:
            title = f"held-out, {mode}, after step {step}: {value:.3f} ± {error:.3f} s.e."
            markers.append(Marker(step, value, 2 * error, mode == "greedy", title))
    return markers


def health_cards(steps: Sequence[dict]) -> list[Card]:
    """A chart a metric of HEALTH that was logged, by reward type where it was logged so."""
    cards = []
    for name, title, note, log in HEALTH:
        series = [Series(title.lower(), values(steps, name), "c-neutral")]
        by_type = [Series(kind, values(steps, f"{name}/{kind}"), f"c-{kind}") for kind in REWARD_TYPES]
        by_type = [line for line in by_type if line.points]
        cards.append(_card(title, note, by_type or series, log=log))
    return [card for card in cards if card.chart]


def _card(title: str, note: str, series: Sequence[Series], css: str = "neutral", log: bool = False) -> Card:
    change = ""
    if len(series) == 1 and len(series[0].points) > 1:
        ends = charts.smoothed(series[0].points)
        change = f"{charts.number(ends[0][1])} → {charts.number(ends[-1][1])}"
    return Card(title, note, charts.line_chart(series, log), css, change)


def time_chart(steps: Sequence[dict]) -> Timing | None:
    """Where the wall time of the steps went; None where no step was timed."""
    timed = [line for line in steps if line.get("time/step_s") is not None]
    if not timed:
        return None
    layers = [
        Series(part, [(line["step"], line.get(f"time/{part}_s") or 0.0) for line in timed], f"t-{part}")
        for part in TIME_PARTS
    ]
    layers = [layer for layer in layers if any(value for _, value in layer.points)]
    totals = [line["time/step_s"] for line in timed]
    mean = fmean(totals)
    means = {layer.label: fmean(value for _, value in layer.points) for layer in layers}
    parts = [TimePart(name, seconds, seconds / mean) for name, seconds in means.items()]
    # The first step compiles kernels and would flatten all others.
    top = 1.15 * sorted(totals)[int(0.97 * (len(totals) - 1))]
    longest = max(timed, key=lambda line: line["time/step_s"])
    cut = f"step {longest['step']} took {longest['time/step_s']:.1f} s"
    return Timing(charts.stacked_chart(layers, top), parts, mean, cut if max(totals) > top else "")


def values(lines: Sequence[dict], name: str) -> list[tuple[float, float]]:
    """(step, value) of a metric, lines without it left out."""
    return [(line["step"], line[name]) for line in lines if line.get(name) is not None]
