"""What Ray, DeepSpeed and the driver cost: the time of the loop's step over that of its parts alone.

    python benchmarks/overhead.py                       the quickstart: 32 prompts x 8
    python benchmarks/overhead.py steps=10 rollout.max_new_tokens=64     `steps`, and any key of the configuration

The parts run one after the other in a process of their own: `vllm.LLM.generate`, a plain transformers forward and
backward on padded batches with AdamW, the reference's forward likewise, and the rewards. Both sides have the same
prompts, weights and seeds, so the same tokens; they take turns, step by step. The learning rate is 0 to keep it so.
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
            print(f"step {step}: loop {ours[-1].seconds:.2f} s, parts {_total(alone[-1]):.2f} s", flush=True)
    ours, alone = ours[WARM_UP_STEPS:], alone[WARM_UP_STEPS:]
    _print_parts(ours, alone)
    typical, fastest = (
        statistic(step.seconds for step in ours) / statistic(_total(step) for step in alone)
        for statistic in (median, min)
    )
    print(f"overhead: loop / parts = {typical:.2f} by median steps, {fastest:.2f} by the fastest ones")


def _total(step) -> float:
    return sum(step.seconds[part] for part in BASELINE)


def _print_parts(ours, alone) -> None:
    """Medians in seconds. The loop's reward and reference times are what is left of them when generation has ended."""
    print(f"\n{'seconds':30}{'loop':>8}{'alone':>8}")
    for part in (*BASELINE, "sync", "idle"):
        loop_s = median(step.metrics[f"time/{part}_s"] for step in ours)
        alone_s = f"{median(step.seconds[part] for step in alone):8.3f}" if part in BASELINE else f"{'-':>8}"
        print(f"{part:30}{loop_s:8.3f}{alone_s}")
    print(f"{'step':30}{median(step.seconds for step in ours):8.3f}{median(map(_total, alone)):8.3f}")
    packed = "packed forward and backward"
    print(f"{packed + ', no DeepSpeed':30}{'':8}{median(step.seconds[packed] for step in alone):8.3f}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
