"""Scores mutated responses until one raises, leaves [0, 1], or takes too long.

    python benchmarks/fuzz_rewards.py [--count 1000000] [--seed 0] [--slow-ms 50]

Seeds are the responses of tests/data/reward_cases.txt, scored against golds of all reward types but
open_ended and math. A mutation repeats, cuts, swaps, joins or corrupts. A call over the limit is timed twice more
and reported if it stays over, so that a busy machine is not a finding. Exits with 1 after printing what it
found.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

from mixed_r1_ray.rewards import score

TABLE = Path(__file__).parents[1] / "tests" / "data" / "reward_cases.txt"
TARGETS = [
    ("matching", "B", {"choices": ("a dog", "a cat", "3.5", "none of the above")}),
    ("matching", "B", {}),
    ("matching", "no", {}),
    ("matching", "red car", {}),
    ("chart", "42", {}),
    ("chart", "50%", {}),
    ("chart", "[Red, 3]", {}),
    ("chart", "Red", {"chart_mode": "edit_distance"}),
    ("counting", "3", {}),
    ("counting", "twelve", {"counting_mode": "relative"}),
    ("iou", "[1, 2, 3, 4]", {}),
    (
        "iou",
        '[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"bbox_2d": [5, 6, 7, 8], "label": "b"}]',
        {"iou_mode": "dynamic"},
    ),
]
JUNK = ["<think>", "</think>", "<answer>", "</answer>", "[", "]", "{", "}", "(", ")", "\\boxed{", "$",
        "%", "1e999", "nan", "9" * 400, "-", ".", ",", "\x00", "\ud800", "ﷺ", "９", "\u0301", "\n", " " * 50,
        "A", "no", "yes", "million", "€", "'", '"', "**"]  # fmt: skip


def seeds() -> list[str]:
    lines = [
        line.split("¦") for line in TABLE.read_text(encoding="utf-8").splitlines() if line.count("¦") == 4
    ]
    return [line[1].strip() for line in lines]


def mutate(text: str, pool: list[str], rng: random.Random) -> str:
    for _ in range(rng.randint(1, 4)):
        start = rng.randint(0, len(text))
        end = min(len(text), start + rng.randint(0, 12))
        text = rng.choice(
            (
                lambda: text[:start] + text[end:],
                lambda: text[:start] + rng.choice(JUNK) + text[end:],
                lambda: text[:start] + text[start:end] * rng.randint(2, 40) + text[end:],
                lambda: text[:start] + rng.choice(pool) + text[end:],
                lambda: text[:start] + chr(rng.randrange(0x110000)) + text[end:],
                lambda: text[end:] + text[:start],
            )
        )()
    return text if rng.random() < 0.3 else f"<think>x</think><answer>{text}</answer>"


def milliseconds(response: str, target: tuple) -> float:
    reward_type, gold, keywords = target
    start = time.perf_counter()
    breakdown = score(reward_type, response, gold, **keywords)
    elapsed = time.perf_counter() - start
    if not 0.0 <= breakdown.task <= 1.0:
        raise AssertionError(f"task reward {breakdown.task}")
    return 1000 * elapsed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slow-ms", type=float, default=50.0)
    arguments = parser.parse_args()
    rng, pool, found = random.Random(arguments.seed), seeds(), 0
    for target in TARGETS:
        milliseconds("<answer>1</answer>", target)  # the first call imports
    started = time.perf_counter()
    for _ in range(arguments.count):
        response, target = mutate(rng.choice(pool), pool, rng), rng.choice(TARGETS)
        try:
            slow = milliseconds(response, target) > arguments.slow_ms
            problem = (
                slow
                and min(milliseconds(response, target) for _ in range(2)) > arguments.slow_ms
                and "is slow"
            )
        except Exception as error:  # whatever it is, it is what we look for
            problem = repr(error)
        if problem:
            found += 1
            print(f"{target[0]}, gold {target[1]!r}: {problem} on {response[:300]!r}")
    seconds = time.perf_counter() - started
    print(f"{arguments.count} responses in {seconds:.0f} s, {found} findings")
    return min(found, 1)


if __name__ == "__main__":
    sys.exit(main())
