"""Whether selection earns its place: training on what `select` kept, against as many records drawn without looking.

    python benchmarks/selection.py [--steps 100] [--seeds 0 1 2] [--per-type 512]

For each seed of the quickstart (data, warm start, run): `select` judges all training records by the warm-started model,
two mixtures of equal size and equal shares of the four types are drawn, from what was kept and from everything, and one
run is trained on each for the same number of steps. Prints held-out task rewards of the one minus the other after the
last step, paired by prompt, and over all seeds. Everything lies under runs/selection; what was finished is not done again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from statistics import fmean

import pyarrow.parquet as pq
import yaml

from mixed_r1_ray.data.synthetic import build_quickstart_data
from mixed_r1_ray.runtime.evaluation_table import PairedDifference, compare, load_results

TYPES = ("matching", "chart", "iou", "open_ended")
ROOT = Path("runs/selection")
CACHE = Path("runs/.cache")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--per-type", type=int, default=512, help="records of each type in either mixture, at most")
    options = parser.parse_args()
    found = {seed: compare_seed(seed, options.steps, options.per_type) for seed in options.seeds}
    print_table(found, options.steps)


def compare_seed(seed: int, steps: int, per_type: int) -> list[PairedDifference]:
    """Held-out results of the run on selected records minus those on unselected ones."""
    everything, _ = build_quickstart_data(CACHE, seed=seed, train_per_type=4096, eval_per_type=400)
    folder = ROOT / f"seed{seed}"
    kept = folder / "selected"
    call("data", "select", everything, "--conf", "select_quickstart", "--out", kept, *seeded(seed))
    strata = count(sorted(kept.glob("*.parquet")))
    size = min(per_type, *(sum(n for (of, _), n in strata.items() if of == kind) for kind in TYPES))
    print(f"seed {seed}: {size} records of each type in either mixture", flush=True)
    finals = []
    for name, place in (("unselected", everything), ("selected", kept)):
        recipe = folder / f"{name}-{size}.yaml"
        recipe.write_text(yaml.safe_dump(equal_shares(name, size, seed, count([everything]))))
        mixture = folder / f"mixture-{name}-{size}"
        call("data", "mix", "--conf", recipe, "--from", place, "--out", mixture)
        run = f"{name}-{size}-{steps}"
        call(
            "main", "conf=quickstart", f"run.dir={folder}", f"run.name={run}", f"data.train={mixture / 'train'}",
            f"run.max_steps={steps}", "run.resume=auto", *seeded(seed),
        )  # fmt: skip
        finals.append(load_results(folder / run / "evals", steps))
    return compare(*finals)


def seeded(seed: int) -> tuple[str, ...]:
    return f"run.seed={seed}", f"tiny.seed={seed}", f"tiny.cache_dir={CACHE}"


def call(module: str, *words: object) -> None:
    """One command of this project, or the end of this one."""
    subprocess.run([sys.executable, "-m", f"mixed_r1_ray.{module}", *map(str, words)], check=True)


def count(files: Sequence[Path]) -> dict[tuple[str, str], int]:
    """Records by (reward type, source)."""
    found: dict[tuple[str, str], int] = {}
    for file in files:
        table = pq.read_table(file, columns=["reward_type", "source"])
        for name in zip(*(table.column(column).to_pylist() for column in table.column_names), strict=True):
            found[name] = found.get(name, 0) + 1
    return found


def equal_shares(name: str, size: int, seed: int, strata: dict[tuple[str, str], int]) -> dict:
    """A recipe of `size` records of each type, whatever their source has; what a source lacks comes from its type."""
    types = {
        kind: {"quota": size, "sources": {source: {"license": "own"} for of, source in strata if of == kind}}
        for kind in TYPES
    }
    return {"name": name, "size": size * len(TYPES), "seed": seed, "without_pass_rate": "keep", "types": types}


def print_table(found: dict[int, list[PairedDifference]], steps: int) -> None:
    """Differences by seed, type and mode, and their mean over seeds."""
    print(f"\nselected minus unselected after {steps} steps, held-out task reward, paired by prompt\n")
    print("| mode | seed | " + " | ".join(TYPES) + " | mean of types |\n|---|---|" + "---|" * (len(TYPES) + 1))
    for mode in ("sampled", "greedy"):
        rows = []
        for seed, differences in found.items():
            by_type = {row.reward_type: row for row in differences if row.mode == mode}
            rows.append([by_type[kind] for kind in TYPES])
            print_row(mode, str(seed), [(row.difference, row.standard_error) for row in rows[-1]])
        print_row(mode, "all", [pooled([(row.difference, row.standard_error) for row in of]) for of in zip(*rows)])


def print_row(mode: str, seed: str, cells: list[tuple[float, float]]) -> None:
    texts = [f"{difference:+.3f} ± {error:.3f}" for difference, error in (*cells, pooled(cells))]
    print(f"| {mode} | {seed} | " + " | ".join(texts) + " |")


def pooled(cells: list[tuple[float, float]]) -> tuple[float, float]:
    """Mean of independent differences, and its standard error."""
    return fmean(value for value, _ in cells), sqrt(sum(error**2 for _, error in cells)) / len(cells)


if __name__ == "__main__":
    main()
