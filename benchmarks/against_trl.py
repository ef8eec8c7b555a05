"""Samples a second of the loop, over those of TRL's GRPOTrainer on the same machine at the same time.

    python benchmarks/against_trl.py short            answers of the warm-started model, about 20 tokens
    python benchmarks/against_trl.py spread           answers from a few to 256 tokens, geometric with a mean near 100
    python benchmarks/against_trl.py short steps=10 trl_threads=1 trl_microbatch=32 learner.threads=2

steps: measured ones. trl_threads (all cores) and trl_microbatch (64 samples) tune TRL; all else are keys of the run.

Needs `pip install trl==1.16.0`. Same checkpoint, prompts in the same order, groups of 8, temperature 1, KL weight 0.04,
float32, rewards, optimizer settings; each side may use every core. The sides take turns, step by step. The ratio is that
of their median step times. Where the machine has other work as well, look at CPU seconds.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
from loop import Loop, benchmark_config, started_loop
from process import Process
from spread_model import make_spread_checkpoint
from trl_side import require_trl, serve_trl

CASES = {
    "short": [],
    "spread": ["rollout.max_new_tokens=256", "model.max_length=320", "rollout.kv_cache_gib=0.3"],
}
# Weights barely move, so that answers keep their lengths while every step does its full work.
COMMON = ["learner.learning_rate=1e-7", "learner.warmup_steps=0", "run.name=against_trl"]
WARM_UP_STEPS = 2


def main(arguments: list[str]) -> None:
    if not arguments or arguments[0] not in CASES:
        raise SystemExit(__doc__)
    require_trl()
    case, settings = arguments[0], dict(argument.split("=", 1) for argument in arguments[1:])
    steps = int(settings.pop("steps", 7))
    threads, microbatch = int(settings.pop("trl_threads", os.cpu_count())), int(settings.pop("trl_microbatch", 64))
    overrides = [f"{key}={value}" for key, value in settings.items()]
    config = benchmark_config([*COMMON, *CASES[case], *overrides])
    if case == "spread":
        config = _with_spread_answers(config)
    with started_loop(config) as loop:
        rows = [row for step in range(1, steps + WARM_UP_STEPS + 1) for row in loop.rows(step)]
        with Process(serve_trl, loop.config, loop.splits["train"], rows, threads, microbatch) as trl:
            _take_turns(loop, trl, steps, case)


def _with_spread_answers(config):
    """The same architecture, untrained and calibrated; the quickstart's own model is built first for its vocabulary."""
    import ray

    from mixed_r1_ray.quickstart import build_missing

    ray.init(include_dashboard=False, log_to_driver=False)
    built = build_missing(config, lambda *_: None)
    ray.shutdown()
    folder = make_spread_checkpoint(built.model, Path("runs/benchmarks/spread_model").resolve())
    return replace(
        config, model=replace(config.model, path=str(folder)), data=replace(config.data, train=built.train)
    )


def _take_turns(loop: Loop, trl: Process, steps: int, case: str) -> None:
    ours, theirs = [], []
    for step in range(1, steps + WARM_UP_STEPS + 1):
        ours.append(loop.step(step))
        theirs.append(trl.ask("step"))
        print(f"step {step}: ours {ours[-1].seconds:.2f} s, TRL {theirs[-1].seconds:.2f} s", flush=True)
    ours, theirs = ours[WARM_UP_STEPS:], theirs[WARM_UP_STEPS:]
    samples = loop.config.rollout.prompts_per_step * loop.config.rollout.group_size
    for name, side, lengths in (
        ("ours", ours, [length for step in ours for group in step.lengths.values() for length in group]),
        ("TRL", theirs, [length for step in theirs for length in step.lengths]),
    ):
        assert len(lengths) == steps * samples, f"{name} trained on {len(lengths)} samples, not {steps * samples}"
        seconds, cpu_seconds = (median(getattr(step, kind) for step in side) for kind in ("seconds", "cpu_seconds"))
        quantiles = "/".join(f"{value:.0f}" for value in np.percentile(lengths, (5, 50, 95)))
        print(
            f"{name:5}{samples / seconds:7.1f} samples/s  {seconds:6.2f} s and {cpu_seconds:.2f} CPU s a step  "
            f"response tokens: mean {np.mean(lengths):.1f}, 5/50/95 % {quantiles}"
        )
    print(f"{case}: ours / TRL = {_ratio(theirs, ours, 'seconds'):.2f} by time, ", end="")
    print(f"{_ratio(theirs, ours, 'cpu_seconds'):.2f} by CPU seconds")


def _ratio(one: list, other: list, kind: str) -> float:
    return median(getattr(step, kind) for step in one) / median(getattr(step, kind) for step in other)


if __name__ == "__main__":
    main(sys.argv[1:])
