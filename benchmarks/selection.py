"""Whether selection earns its place: training on what `select` kept, against as many records drawn without looking.

    python benchmarks/selection.py [--steps 100] [--seeds 0 1 2] [--per-type 512]

For each seed of the quickstart (data, warm start, run): `select` judges all training records by the warm-started model,
two mixtures of equal size and equal shares of the four types are drawn, from what was kept and from everything, and one
run is trained on each for the same number of steps. Prints held-out task rewards of the one minus the other after the
last step, paired by prompt, and over all seeds. Everything lies under runs/selection; what was finished is not done again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import pyarrow.parquet as pq
import yaml
from paired import CACHE, MODES, TYPES, By, Cell, call, cells, difference, over_seeds, pooled, print_head, print_row
from paired import said, seeded, train

from mixed_r1_ray.data.synthetic import build_quickstart_data
from mixed_r1_ray.runtime.metrics import read_metrics

ROOT = Path("runs/selection")
FIRST, LAST = slice(0, 20), slice(-20, None)  # steps
CURVES = {
    "flat groups, steps 1-20": ("group/zero_variance_fraction", FIRST),
    "flat groups, last 20 steps": ("group/zero_variance_fraction", LAST),
    "reward, steps 1-20": ("reward/mean", FIRST),
    "KL to the reference, last 20 steps": ("kl/reference", LAST),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--per-type", type=int, default=512, help="records of each type in either mixture, at most")
    options = parser.parse_args()
    found = {seed: compare_seed(seed, options.steps, options.per_type) for seed in options.seeds}
    print_table({seed: difference(*runs) for seed, runs in found.items()}, options.steps)
    print_training([[folder for folder, _ in runs] for runs in found.values()])


def compare_seed(seed: int, steps: int, per_type: int) -> list[tuple[Path, int]]:
    """The finished run on unselected records, and that on selected ones: folder and last step."""
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
        run = folder / f"{name}-{size}-{steps}"
        train(run, seed, steps, f"data.train={mixture / 'train'}")
        finals.append((run, steps))
    return finals


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


def print_table(found: dict[int, By], steps: int) -> None:
    """Differences by seed, type and mode, and their mean over seeds."""
    print(f"\nselected minus unselected after {steps} steps, held-out task reward, paired by prompt\n")
    print_head("mode", "seed", *TYPES, "mean of types")
    for mode in MODES:
        for seed, differences in found.items():
            print_differences(mode, seed, cells(differences, mode))
        print_differences(mode, "all", over_seeds(list(found.values()), mode))


def print_training(pairs: list[list[Path]]) -> None:
    """What the runs were like, unselected and selected, means over seeds."""
    print("\nwhile it trained, mean over seeds\n")
    print_head("", *CURVES)
    for name, folders in zip(("unselected", "selected"), zip(*pairs, strict=True), strict=True):
        means = [fmean(_mean(folder, *of) for folder in folders) for of in CURVES.values()]
        print_row(name, *(f"{value:.3f}" for value in means))


def _mean(folder: Path, metric: str, steps: slice) -> float:
    lines = [line for line in read_metrics(folder / "metrics.jsonl") if metric in line]
    return fmean(line[metric] for line in lines[steps])


def print_differences(mode: str, seed: int | str, of_types: list[Cell]) -> None:
    print_row(mode, seed, *map(said, (*of_types, pooled(of_types))))


if __name__ == "__main__":
    main()
