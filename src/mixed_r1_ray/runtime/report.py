"""report.html: one self-contained page about a run, made from the run's own files alone.

`python -m mixed_r1_ray.runtime.report runs/NAME` makes it again.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.runtime import atomic, charts
from mixed_r1_ray.runtime.evaluation_table import (
    PairedDifference,
    compare,
    evaluated_steps,
    load_results,
    summarise,
)
from mixed_r1_ray.runtime.metrics import read_metrics
from mixed_r1_ray.runtime.progress import duration
from mixed_r1_ray.runtime.report_cards import TYPE_LABELS, health_cards, reward_cards, time_chart, values
from mixed_r1_ray.runtime.report_samples import Sample, mark_up, pair_samples, save_pictures
from mixed_r1_ray.runtime.run_config import read_config
from mixed_r1_ray.runtime.run_dir import RunFiles
from mixed_r1_ray.runtime.warning_log import read_warnings

TEMPLATE = Path(__file__).with_name("report.html.j2")
MODE_LABELS = {"sampled": "Sampled", "greedy": "Greedy"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The table of one mode."""

    mode: str
    rows: Sequence[PairedDifference]
    limit: float  # half width of the interval charts


def write_report(run_dir: Path, eval_pictures: Mapping[str, bytes] | None = None) -> Path:
    """Writes report.html of a run folder and returns its path.

    eval_pictures: encoded pictures by prompt id (`choose_samples` says which are shown); they are kept under
    evals/pictures, so that the page can be made again without them.
    """
    from jinja2 import Environment, StrictUndefined

    files = RunFiles(run_dir)
    save_pictures(files.pictures, eval_pictures or {})
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
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
        "config": config,
        "environment": environment,
        "facts": _facts(config, steps),
        "headline": headline([row for verdict in verdicts for row in verdict.rows]),
        "verdicts": verdicts,
        "first": first,
        "last": last,
        "baseline": summarise(before) if after is None else {},
        "rewards": reward_cards(steps, evaluations),
        "health": health_cards(steps),
        "timing": time_chart(steps),
        "samples": _by_type(pair_samples(before, after, files.pictures)),
        "warnings": read_warnings(files.warnings_file),
        "config_text": files.config_file.read_text(encoding="utf-8"),
        "labels": TYPE_LABELS,
        "trained_types": [kind for kind in TYPE_LABELS if any(f"reward/{kind}" in line for line in steps)],
        "modes": MODE_LABELS,
    }


def headline(rows: Sequence[PairedDifference]) -> list[str]:
    """A sentence a mode: which types rose or fell beyond two standard errors."""
    sentences = []
    for mode in MODE_LABELS:
        of_mode = [row for row in rows if row.mode == mode]
        if not of_mode:
            continue
        up, down = (
            [TYPE_LABELS.get(row.reward_type, row.reward_type) for row in of_mode if row.verdict == verdict]
            for verdict in ("up", "down")
        )
        rose = f"{len(up)} of {len(of_mode)} types rose" + (f" ({', '.join(up).lower()})" if up else "")
        fell = f"{len(down)} fell ({', '.join(down).lower()})" if down else "none fell"
        sentences.append(f"{MODE_LABELS[mode]}: {rose}, {fell} by more than two standard errors.")
    return sentences


def _facts(config: dict[str, Any], steps: Sequence[dict]) -> list[tuple[str, str]]:
    done = steps[-1]["step"] if steps else 0
    seconds = sum(line.get("time/step_s") or 0.0 for line in steps)
    rollout = config["rollout"]
    facts = [
        ("Model", str(config["model"]["path"])),
        ("Steps", f"{done} of {config['run']['max_steps']}"),
        ("Batch", f"{rollout['prompts_per_step']} prompts × {rollout['group_size']} responses"),
        ("Time in steps", duration(seconds)),
    ]
    worst = values(steps, "mismatch/logprob_abs_max")
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


def _by_type(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.prompt.reward_type, []).append(sample)
    return groups


def main(arguments: Sequence[str]) -> int:
    """Makes report.html of a run folder again."""
    if len(arguments) != 1 or not (Path(arguments[0]) / "config.yaml").is_file():
        print(
            "usage: python -m mixed_r1_ray.runtime.report runs/NAME (a folder with a run's config.yaml)",
            file=sys.stderr,
        )
        return 2
    try:
        print(write_report(Path(arguments[0])))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
