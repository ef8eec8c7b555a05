"""What each way of scaling mixed rewards does to learning, on the quickstart's mixture.

    python benchmarks/reward_scales.py [--steps 120] [--seed 0] [--svg docs/reward_scales.svg]

Trains from one warm start once for each setting, same prompts and seeds, evaluates before and after on the held-out
split, prints the paired differences by type, and draws the training rewards. Runs are kept under
runs/reward_scales and continue where they were stopped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from html import escape
from pathlib import Path

from mixed_r1_ray.runtime.charts import HEIGHT, WIDTH, Series, line_chart
from mixed_r1_ray.runtime.evaluation_table import compare, load_results

TYPES = ("matching", "chart", "iou", "open_ended")
SETTINGS = {
    "group": ("algo.std_floor=0",),
    "group, floor 0.05": ("algo.std_floor=0.05",),
    "batch": ("algo.scale_rewards=batch", "algo.std_floor=0"),
    "none": ("algo.scale_rewards=none",),
    "normalize_then_sum": ("algo.multi_objective_aggregation=normalize_then_sum", "algo.std_floor=0"),
}
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--svg", type=Path, default=Path("docs/reward_scales.svg"))
    options = parser.parse_args()
    folders = {name: train(name, options.steps, options.seed) for name in SETTINGS}
    print_table(folders, options.steps)
    options.svg.write_text(figure(folders), encoding="utf-8")
    print(f"drawn: {options.svg}")


def train(name: str, steps: int, seed: int) -> Path:
    """The run folder of one setting, trained to `steps`."""
    run = f"{''.join(c if c.isalnum() else '_' for c in name)}-{seed}"
    command = [sys.executable, "-m", "mixed_r1_ray.main", "conf=quickstart", "run.dir=runs/reward_scales"]
    command += [f"run.name={run}", f"run.seed={seed}", f"tiny.seed={seed}", f"run.max_steps={steps}", "run.resume=auto"]
    subprocess.run([*command, *SETTINGS[name]], check=True)
    return Path("runs/reward_scales") / run


def print_table(folders: dict[str, Path], steps: int) -> None:
    """Held-out sampled and greedy task rewards: after minus before, paired by prompt, by type."""
    print(f"\n| {steps} steps | mode | " + " | ".join(TYPES) + " |")
    print("|---|---|" + "---|" * len(TYPES))
    for name, folder in folders.items():
        before, after = (load_results(folder / "evals", step) for step in (0, steps))
        for mode in ("sampled", "greedy"):
            cells = {
                change.reward_type: f"{change.difference:+.3f} ± {change.standard_error:.3f}"
                for change in compare(before, after)
                if change.mode == mode
            }
            print(f"| {name} | {mode} | " + " | ".join(cells[kind] for kind in TYPES) + " |")


def figure(folders: dict[str, Path]) -> str:
    """One panel a type, one line a setting."""
    panels = []
    for number, kind in enumerate(TYPES):
        lines = [
            Series(name, rewards(folder, kind), f"s{place}") for place, (name, folder) in enumerate(folders.items())
        ]
        x, y = (number % 2) * WIDTH, 40 + (number // 2) * (HEIGHT + 24)
        chart = line_chart(lines).replace("<svg ", f'<svg x="{x}" y="{y + 14}" width="{WIDTH}" height="{HEIGHT}" ', 1)
        panels.append(f'<text x="{x + 44}" y="{y + 8}" class="title">{kind}: task reward while training</text>{chart}')
    legend = "".join(
        f'<text x="{20 + 140 * place}" y="20" fill="{colour}">{escape(name)}</text>'
        for place, (name, colour) in enumerate(zip(folders, COLOURS, strict=True))
    )
    strokes = "".join(f".s{place}{{stroke:{colour}}}" for place, colour in enumerate(COLOURS))
    style = (
        "text{font:12px sans-serif}.title{font-weight:bold}.tick{font-size:11px;fill:#666}.grid{stroke:#ddd}"
        f".line{{fill:none;stroke-width:2}}.raw{{display:none}}.tip{{fill:transparent}}{strokes}"
    )
    width, height = 2 * WIDTH, 40 + 2 * (HEIGHT + 24)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"><style>{style}</style>'
        f'<rect width="{width}" height="{height}" fill="white"/>{legend}{"".join(panels)}</svg>\n'
    )


def rewards(folder: Path, kind: str) -> list[tuple[float, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line[f"reward/{kind}"]) for line in lines if f"reward/{kind}" in line]


if __name__ == "__main__":
    main()
