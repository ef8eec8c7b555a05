"""report.html: one self-contained page about a run, made from the run's own files alone.

`python -m mixed_r1_ray.runtime.report runs/NAME` makes it again.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.runtime import atomic, charts
from mixed_r1_ray.runtime.charts import Marker, Series
from mixed_r1_ray.runtime.evaluation_table import (
    EvalResult,
    PairedDifference,
    compare,
    evaluated_steps,
    load_results,
    summarise,
)
from mixed_r1_ray.runtime.metrics import read_metrics
from mixed_r1_ray.runtime.progress import duration
from mixed_r1_ray.runtime.report_samples import Sample, mark_up, pair_samples, save_pictures
from mixed_r1_ray.runtime.run_dir import RunFiles, read_config
from mixed_r1_ray.runtime.warning_log import read_warnings
from mixed_r1_ray.types import REWARD_TYPES

TEMPLATE = Path(__file__).with_name("report.html.j2")
TYPE_LABELS = {"matching": "Matching", "chart": "Chart", "iou": "Grounding", "open_ended": "Open-ended"}
TYPE_NOTES = {"matching": "right or wrong", "chart": "right within 5 % on numbers", "iou": "overlap with the gold box",
              "open_ended": "BMAS, similarity to the gold text"}
MODE_LABELS = {"sampled": "Sampled", "greedy": "Greedy"}
TIME_PARTS = ("generate", "reward", "reference", "learn", "sync", "idle")

#: Charts below the rewards: metric, title, what it tells, logarithmic axis.
HEALTH = (
    ("kl/reference", "KL to the reference", "nats a token; how far the policy has moved", False),
    ("entropy", "Entropy", "nats a token; a collapse to 0 ends exploration", False),
    ("grad_norm", "Gradient norm", "before clipping", False),
    ("length/response_tokens", "Response length", "mean tokens", False),
    ("length/unfinished_fraction", "Unfinished responses", "fraction cut at the longest length allowed", False),
    ("group/zero_variance_fraction", "Groups without signal", "fraction whose samples all earned the same", False),
    ("clip/fraction", "Clipped tokens", "fraction whose ratio left the clipping range", False),
    ("mismatch/logprob_abs_max", "Engine against trainer", "largest log-probability difference of a token", True),
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
class Verdict:
    """The table of one mode."""

    mode: str
    rows: Sequence[PairedDifference]
    limit: float  # half width of the interval charts


@dataclass(frozen=True, slots=True)
class TimePart:
    """What one phase takes of a mean step."""

    name: str
    seconds: float
    share: float


def write_report(run_dir: Path, eval_pictures: Mapping[str, bytes] | None = None) -> Path:
    """Writes report.html of a run folder and returns its path.

    eval_pictures: encoded pictures by prompt id (`choose_samples` says which are shown); they are kept under
    evals/pictures, so that the page can be made again without them.
    """
    from jinja2 import Environment, StrictUndefined

    files = RunFiles(run_dir)
    save_pictures(files.pictures, eval_pictures or {})
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"mark_up": mark_up, "interval": _interval}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    atomic.write_text(files.report_file, template.render(_contents(files)))
    return files.report_file


def _contents(files: RunFiles) -> dict[str, Any]:
    config, environment = read_config(files.config_file)
    lines = read_metrics(files.metrics_file)
    steps = [line for line in lines if "reward/mean" in line or "time/step_s" in line]
    evaluations = {step: load_results(files.evals, step) or [] for step in evaluated_steps(files.evals)}
    first, last = (min(evaluations), max(evaluations)) if evaluations else (None, None)
    before = evaluations.get(first, [])
    after = evaluations[last] if last != first else None
    verdicts = _verdicts(compare(before, after)) if after is not None else []
    return {
        "config": config, "environment": environment, "facts": _facts(config, steps),
        "headline": headline([row for verdict in verdicts for row in verdict.rows]),
        "verdicts": verdicts, "first": first, "last": last,
        "baseline": summarise(before) if after is None else {},
        "rewards": _reward_cards(steps, evaluations), "health": _health_cards(steps),
        "timing": _timing(steps), "samples": _by_type(pair_samples(before, after, files.pictures)),
        "warnings": read_warnings(files.warnings_file),
        "config_text": files.config_file.read_text(encoding="utf-8"), "labels": TYPE_LABELS, "modes": MODE_LABELS,
    }


def headline(rows: Sequence[PairedDifference]) -> list[str]:
    """A sentence a mode: which types rose or fell beyond two standard errors."""
    sentences = []
    for mode in MODE_LABELS:
        of_mode = [row for row in rows if row.mode == mode]
        if not of_mode:
            continue
        up, down = ([TYPE_LABELS.get(row.reward_type, row.reward_type) for row in of_mode if row.verdict == verdict]
                    for verdict in ("up", "down"))
        rose = f"{len(up)} of {len(of_mode)} types rose" + (f" ({', '.join(up).lower()})" if up else "")
        fell = f"{len(down)} fell ({', '.join(down).lower()})" if down else "none fell"
        sentences.append(f"{MODE_LABELS[mode]}: {rose}, {fell} by more than two standard errors.")
    return sentences


def _facts(config: dict[str, Any], steps: Sequence[dict]) -> list[tuple[str, str]]:
    done = steps[-1]["step"] if steps else 0
    seconds = sum(line.get("time/step_s") or 0.0 for line in steps)
    rollout = config["rollout"]
    facts = [("Model", str(config["model"]["path"])), ("Steps", f"{done} of {config['run']['max_steps']}"),
             ("Batch", f"{rollout['prompts_per_step']} prompts × {rollout['group_size']} responses"),
             ("Time in steps", duration(seconds))]
    worst = _values(steps, "mismatch/logprob_abs_max")
    if worst:
        facts.append(("Largest mismatch", charts.number(max(value for _, value in worst))))
    return facts


def _verdicts(rows: Sequence[PairedDifference]) -> list[Verdict]:
    edges = [abs(row.difference) + 2 * (row.standard_error or 0.0) for row in rows]
    limit = max([*edges, 0.01])
    of_modes = {mode: [row for row in rows if row.mode == mode] for mode in MODE_LABELS}
    return [Verdict(mode, of_mode, limit) for mode, of_mode in of_modes.items() if of_mode]


def _interval(row: PairedDifference, limit: float) -> str:
    return charts.interval_chart(row.difference, 2 * (row.standard_error or 0.0), limit, f"v-{row.verdict}")


def _reward_cards(steps: Sequence[dict], evaluations: Mapping[int, Sequence[EvalResult]]) -> list[Card]:
    held_out = {step: summarise(results) for step, results in evaluations.items()}
    cards = []
    for kind in REWARD_TYPES:
        markers = [marker for step, metrics in held_out.items() for marker in _markers(step, metrics, kind)]
        series = Series(kind, _values(steps, f"reward/{kind}"), f"c-{kind}", markers)
        cards.append(_card(TYPE_LABELS[kind], f"task reward: {TYPE_NOTES[kind]}", [series], kind))
    cards.append(_card("Format", "fraction of samples in the demanded format",
                       [Series("format", _values(steps, "reward/format"), "c-neutral")]))
    cards.append(_card("Total", "weighted task and format rewards",
                       [Series("total", _values(steps, "reward/mean"), "c-neutral")]))
    return [card for card in cards if card.chart]


def _markers(step: int, metrics: Mapping[str, float], kind: str) -> list[Marker]:
    markers = []
    for mode in ("sampled", "greedy"):
        value, error = metrics.get(f"eval/{mode}/{kind}"), metrics.get(f"eval/{mode}/{kind}/se", 0.0)
        if value is not None:
            title = f"held-out, {mode}, after step {step}: {value:.3f} ± {error:.3f} s.e."
            markers.append(Marker(step, value, 2 * error, mode == "greedy", title))
    return markers


def _health_cards(steps: Sequence[dict]) -> list[Card]:
    cards = []
    for name, title, note, log in HEALTH:
        series = [Series(title.lower(), _values(steps, name), "c-neutral")]
        by_type = [Series(kind, _values(steps, f"{name}/{kind}"), f"c-{kind}") for kind in REWARD_TYPES]
        by_type = [line for line in by_type if line.points]
        cards.append(_card(title, note, by_type or series, log=log))
    return [card for card in cards if card.chart]


def _card(title: str, note: str, series: Sequence[Series], css: str = "neutral", log: bool = False) -> Card:
    change = ""
    if len(series) == 1 and len(series[0].points) > 1:
        ends = charts.smoothed(series[0].points)
        change = f"{charts.number(ends[0][1])} → {charts.number(ends[-1][1])}"
    return Card(title, note, charts.line_chart(series, log), css, change)


def _timing(steps: Sequence[dict]) -> dict[str, Any] | None:
    timed = [line for line in steps if line.get("time/step_s") is not None]
    if not timed:
        return None
    layers = [Series(part, [(line["step"], line.get(f"time/{part}_s") or 0.0) for line in timed], f"t-{part}")
              for part in TIME_PARTS]
    layers = [layer for layer in layers if any(value for _, value in layer.points)]
    totals = [line["time/step_s"] for line in timed]
    # The first step compiles kernels and would flatten all others.
    top = 1.15 * sorted(totals)[int(0.97 * (len(totals) - 1))]
    longest = max(timed, key=lambda line: line["time/step_s"])
    cut = f"step {longest['step']} took {longest['time/step_s']:.1f} s" if longest["time/step_s"] > top else ""
    mean = fmean(totals)
    parts = [TimePart(layer.label, fmean(value for _, value in layer.points), 0.0) for layer in layers]
    parts = [TimePart(part.name, part.seconds, part.seconds / mean if mean else 0.0) for part in parts]
    return {"chart": charts.stacked_chart(layers, top), "parts": parts, "mean": mean, "cut": cut}


def _by_type(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.prompt.reward_type, []).append(sample)
    return groups


def _values(lines: Sequence[dict], name: str) -> list[tuple[float, float]]:
    return [(line["step"], line[name]) for line in lines if line.get(name) is not None]


def main(arguments: Sequence[str]) -> int:
    """Makes report.html of a run folder again."""
    if len(arguments) != 1 or not (Path(arguments[0]) / "config.yaml").is_file():
        print("usage: python -m mixed_r1_ray.runtime.report runs/NAME (a folder with a run's config.yaml)",
              file=sys.stderr)
        return 2
    try:
        print(write_report(Path(arguments[0])))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
