"""Whether it learns: with every loss, and with generation ahead of learning, on the quickstart's mixture.

    python benchmarks/learning.py [--steps 100] [--seeds 0 1 2] [--settings grpo stale-1 …] [--table-only]

For each seed of the quickstart (data, warm start, run) every setting is trained from the same warm start. The losses
take two optimizer steps a batch: with one, every ratio is 1, nothing is clipped, and they differ in aggregation only.
The first table is held-out task reward after minus before. The second is each setting with stale samples minus the
on-policy one of the same learning rate after the last step, paired by prompt. Standard errors are those of the prompts,
pooled over seeds; how much training itself varies is seen from seed to seed. Runs are kept under runs/learning,
continue where they were stopped, and are not done again; --table-only prints what is there.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from paired import MODES, TYPES, By, Cell, cells, difference, over_seeds, pooled, print_head, print_row, said, train

from mixed_r1_ray.runtime.evaluation_table import PairedDifference

ROOT = Path("runs/learning")
RESULTS = Path("benchmarks/results/learning.json")
Find = Callable[[str, int, int], By | None]  # of a setting, seed and number of steps
LOSSES = {
    "grpo": ("algo.loss=grpo", "algo.clip_ratio_low=0.2", "algo.clip_ratio_high=0.2"),
    "dapo": ("algo.loss=dapo", "algo.clip_ratio_low=0.2", "algo.clip_ratio_high=0.28"),
    "dr_grpo": ("algo.loss=dr_grpo", "algo.clip_ratio_low=0.2", "algo.clip_ratio_high=0.2"),
    "gspo": ("algo.loss=gspo", "algo.clip_ratio_low=3e-4", "algo.clip_ratio_high=4e-4"),
    "cispo": ("algo.loss=cispo", "algo.cispo_ratio_max=5"),
}
FAST = "learner.learning_rate=4e-4"  # four times the quickstart's
CORRECTED, UNCORRECTED = "algo.rollout_correction=token", "algo.rollout_correction=none"
ON_POLICY = {"on-policy": ("algo.max_staleness=0",), "fast-on-policy": ("algo.max_staleness=0", FAST)}
AHEAD = {
    "stale-1": ("algo.max_staleness=1", CORRECTED),
    "stale-2": ("algo.max_staleness=2", CORRECTED),
    "stale-1-uncorrected": ("algo.max_staleness=1", UNCORRECTED),
    "stale-2-uncorrected": ("algo.max_staleness=2", UNCORRECTED),
    "fast-stale-8": ("algo.max_staleness=8", CORRECTED, FAST),
    "fast-stale-8-uncorrected": ("algo.max_staleness=8", UNCORRECTED, FAST),
}
BASELINE = {name: "fast-on-policy" if name.startswith("fast-") else "on-policy" for name in AHEAD}
SETTINGS = {loss: (*words, "algo.num_minibatches=2") for loss, words in LOSSES.items()} | ON_POLICY | AHEAD


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS), metavar="NAME")
    parser.add_argument("--table-only", action="store_true", help="train nothing, print what is there")
    options = parser.parse_args()
    if not options.table_only:
        for seed in options.seeds:  # all settings of one seed first: a table of one seed is a table
            for name in options.settings:
                if any(find(name, seed, options.steps) is None for find in wanted_of(name)):
                    for one in (BASELINE[name], name) if name in AHEAD else (name,):  # their answers are compared
                        train(run_folder(one, seed, options.steps), seed, options.steps, *SETTINGS[one])
    print_changes({name: by_seed(change, name, options) for name in options.settings}, options.steps)
    ahead = [name for name in options.settings if name in AHEAD]
    print_staleness({name: by_seed(minus_on_policy, name, options) for name in ahead}, options.steps)


def wanted_of(name: str) -> tuple[Find, ...]:
    """What the tables say of a setting."""
    return (change, minus_on_policy) if name in AHEAD else (change,)


def run_folder(name: str, seed: int, steps: int) -> Path:
    return ROOT / f"{name}-{seed}-{steps}"


def change(name: str, seed: int, steps: int) -> By | None:
    """Held-out results after minus before, where the run is finished."""
    folder = run_folder(name, seed, steps)
    return kept(f"{folder.name} minus its start", difference((folder, 0), (folder, steps)))


def minus_on_policy(name: str, seed: int, steps: int) -> By | None:
    """Held-out results after the last step minus on-policy's, where both runs are finished."""
    folder, other = run_folder(name, seed, steps), run_folder(BASELINE[name], seed, steps)
    return kept(f"{folder.name} minus {other.name}", difference((other, steps), (folder, steps)))


def kept(what: str, found: By | None) -> By | None:
    """What was found, written down; or what was written down before."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if found is not None and known.get(what) != (rows := [asdict(row) for row in found.values()]):
        known[what] = rows
        RESULTS.parent.mkdir(exist_ok=True)
        lines = (f"{json.dumps(key)}: {json.dumps(known[key])}" for key in sorted(known))
        RESULTS.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    if what not in known:
        return None
    return {(row["reward_type"], row["mode"]): PairedDifference(**row) for row in known[what]}


def by_seed(find: Find, name: str, options: argparse.Namespace) -> dict[int, By]:
    """What there is of a setting."""
    found = {seed: find(name, seed, options.steps) for seed in options.seeds}
    return {seed: differences for seed, differences in found.items() if differences is not None}


def print_changes(found: dict[str, dict[int, By]], steps: int) -> None:
    """A row a setting and mode, with how many types rose, and how many rose and fell beyond two standard errors."""
    print(f"\nheld-out task reward after {steps} steps minus before, paired by prompt, pooled over seeds\n")
    print_head("setting", "seeds", "mode", *TYPES, "types up", "beyond 2 s.e.", "down beyond 2 s.e.")
    for name, mode, seeds in rows(found):
        of_types = over_seeds(list(seeds.values()), mode)
        risen = sum(value > 0 for value, _ in of_types)
        clear = (sum(sign * value > 2 * error for value, error in of_types) for sign in (1, -1))
        print_row(name, listed(seeds), mode, *map(said, of_types), "every" if risen == len(TYPES) else risen, *clear)


def print_staleness(found: dict[str, dict[int, By]], steps: int) -> None:
    """A row a setting and mode; in parentheses the difference in standard errors."""
    print(f"\nheld-out task reward minus on-policy's, both after {steps} steps, paired by prompt, pooled over seeds\n")
    print_head("setting", "seeds", "mode", *TYPES, "mean of types", "seed by seed")
    for name, mode, seeds in rows(found):
        of_types = over_seeds(list(seeds.values()), mode)
        columns = (f"{said(cell)} ({cell[0] / (cell[1] or math.nan):+.1f})" for cell in with_mean(of_types))
        means = [with_mean(cells(of_seed, mode))[-1] for of_seed in seeds.values()]
        print_row(name, listed(seeds), mode, *columns, ", ".join(f"{value:+.3f}" for value, _ in means))


def rows(found: dict[str, dict[int, By]]) -> Iterator[tuple[str, str, dict[int, By]]]:
    """Setting, mode and results by seed; without the settings of which no run is finished."""
    return ((name, mode, seeds) for name, seeds in found.items() for mode in MODES if seeds)


def with_mean(of_types: list[Cell]) -> list[Cell]:
    return [*of_types, pooled(of_types)]


def listed(seeds: dict[int, By]) -> str:
    return " ".join(map(str, seeds))


if __name__ == "__main__":
    main()
