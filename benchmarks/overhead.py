"""What Ray, DeepSpeed and the driver cost: the time of the loop's step over that of its parts alone.

    python benchmarks/overhead.py                       the quickstart: 32 prompts x 8
    python benchmarks/overhead.py steps=10 rollout.max_new_tokens=64     `steps`, and any key of the configuration

The parts run one after the other in a process of their own: `vllm.LLM.generate`, a plain transformers forward and
backward on padded batches with AdamW, the reference's forward likewise, and the rewards. Both sides have the same
prompts, weights and seeds, so the same tokens; they take turns, step by step. The learning rate is 0 to keep it so. Rows that begin with "packed" are this project's own forward and backward without
DeepSpeed and Ray around them.
"""

from __future__ import annotations

import sys
from statistics import median

from loop import benchmark_config, started_loop
from plain import serve_parts
from process import Process

WARM_UP_STEPS = 2
BASELINE = ("generate", "reward", "reference", "learn")
SETTINGS = ["learner.learning_rate=0", "run.name=overhead"]


def main(arguments: list[str]) -> None:
    settings = dict(argument.split("=", 1) for argument in arguments)
    steps = int(settings.pop("steps", 7))
    config = benchmark_config([*SETTINGS, *(f"{key}={value}" for key, value in settings.items())])
    ours, alone = [], []
    with started_loop(config) as loop, Process(serve_parts, loop.config, loop.splits["train"]) as parts:
        for step in range(1, steps + WARM_UP_STEPS + 1):
            ours.append(loop.step(step))
            alone.append(parts.ask((step, loop.rows(step))))
            assert ours[-1].lengths == alone[-1].lengths, f"step {step}: the two sides did not sample the same tokens"
            print(f"step {step}: loop {ours[-1].seconds:.2f} s, parts {_total(alone[-1].seconds):.2f} s", flush=True)
    ours, alone = ours[WARM_UP_STEPS:], alone[WARM_UP_STEPS:]
    _print_parts(ours, alone)
    by_time = median(step.seconds for step in ours) / median(_total(step.seconds) for step in alone)
    by_cpu = median(step.cpu_seconds for step in ours) / median(_total(step.cpu_seconds) for step in alone)
    print(f"\noverhead: loop / parts = {by_time:.2f} by time, {by_cpu:.2f} by CPU seconds")


def _total(parts: dict[str, float]) -> float:
    return sum(parts[part] for part in BASELINE)


def _print_parts(ours, alone) -> None:
    """Medians in seconds. The loop's reward and reference times are what is left of them when generation has ended."""
    print(f"\n{'seconds':30}{'loop':>8}{'alone':>8}{'alone, CPU':>12}")
    for part in (*BASELINE, "sync", "idle"):
        row = f"{part:30}{median(step.metrics[f'time/{part}_s'] for step in ours):8.3f}"
        print(row + (_alone(alone, part) if part in BASELINE else ""))
    total_s = median(_total(step.seconds) for step in alone)
    print(f"{'step':30}{median(step.seconds for step in ours):8.3f}{total_s:8.3f}")
    for part in ("reference", "learn"):
        print(f"{f'packed {part}':30}{'':8}{_alone(alone, f'packed {part}')}")


def _alone(alone, part: str) -> str:
    seconds, cpu_seconds = median(step.seconds[part] for step in alone), median(step.cpu_seconds[part] for step in alone)
    return f"{seconds:8.3f}{cpu_seconds:12.3f}"


if __name__ == "__main__":
    main(sys.argv[1:])
