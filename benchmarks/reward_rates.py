"""Responses a second of the short-answer rewards and of a user's function, on one core.

    python benchmarks/reward_rates.py [--seconds 2]

Matching, chart, IoU and counting score the responses of tests/data/reward_cases.txt, each kind against one gold. So
does math, whose expressions go to math-verify in another process, and once more with whole numbers alone, which do not.
custom calls a function that returns at once. Prints each rate and its ratio to the slowest allowed, 20,000 a second
(none is set for what is another's code: math-verify's and custom's).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mixed_r1_ray.rewards import RewardSample, RewardScorer

TABLE = Path(__file__).parents[1] / "tests" / "data" / "reward_cases.txt"
FLOOR = 20_000
BATCH = 256
CHOICES = ("a dog", "a cat", "a bird", "none of the above")
GOLDS = {"matching": "B", "chart": "42", "iou": "[10, 10, 90, 90]", "counting": "3", "math": "42", "custom": "x"}
CUSTOM = "def score(sample):\n    return 1.0\n"


def samples(kind: str) -> list[RewardSample]:
    """Responses of this reward's cases, each against one gold."""
    lines = [line.split("¦") for line in TABLE.read_text(encoding="utf-8").splitlines() if line.count("¦") == 4]
    of_kind = [line[1].strip() for line in lines if line[0].strip() == kind]
    answers = of_kind or ["x"]
    choices = CHOICES if kind == "matching" else None
    return [
        RewardSample(kind, f"<think>t</think><answer>{answers[i % len(answers)]}</answer>", GOLDS[kind], None, choices)
        for i in range(BATCH)
    ]


def whole_numbers() -> list[RewardSample]:
    """Math answers that are whole numbers, a quarter of them right."""
    return [RewardSample("math", rf"<think>t</think><answer>\boxed{{{40 + i % 4}}}</answer>", "42") for i in range(BATCH)]


def rate(score: Callable[[Sequence[RewardSample]], object], batch: Sequence[RewardSample], seconds: float) -> float:
    """Samples a second over at least `seconds`, after one call that is not counted."""
    score(batch)
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        score(batch)
        calls += 1
    return calls * len(batch) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "at_once.py"
        file.write_text(CUSTOM)
        with RewardScorer(custom=f"{file}:score") as scorer:
            batches = {kind: samples(kind) for kind in GOLDS} | {"math, whole numbers": whole_numbers()}
            for name, batch in batches.items():
                found = rate(scorer.score, batch, arguments.seconds)
                ratio = "" if name in ("math", "custom") else f"   × {found / FLOOR:.1f} of {FLOOR:,}"
                print(f"{name:20s} {found:9,.0f} responses/s{ratio}")


if __name__ == "__main__":
    main()
