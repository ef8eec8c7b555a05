"""What a checkpoint costs the training: the time for which it stops the learners, over the time of a step.

    python benchmarks/checkpoint.py                             the quickstart: 32 prompts x 8, a checkpoint a step
    python benchmarks/checkpoint.py steps=20 learner.num_workers=2      `steps`, and any key of the configuration

The stop is what the loop waits in `Checkpointer.save`: for the former checkpoint, if it is still being written, and for
the copy of the state to host memory. Checkpoints come after each step, so the former one has as little time as can be.
"Whole" is the stop with the writing waited for at once: what it would cost in the foreground.
"""

from __future__ import annotations

import sys
import time
from statistics import median

from loop import benchmark_config, started_loop

WARM_UP_STEPS = 2
FOREGROUND_EVERY = 3
SETTINGS = ["run.name=checkpoint"]


def main(arguments: list[str]) -> None:
    settings = dict(argument.split("=", 1) for argument in arguments)
    steps = int(settings.pop("steps", 12))
    config = benchmark_config([*SETTINGS, *(f"{key}={value}" for key, value in settings.items())])
    step_s, stop_s, whole_s = [], [], []
    with started_loop(config) as loop, loop.checkpoints as checkpoints:
        for step in range(1, steps + WARM_UP_STEPS + 1):
            seconds = loop.step(step).seconds
            begun = time.perf_counter()
            checkpoints.save(step)
            stopped = time.perf_counter() - begun
            if step % FOREGROUND_EVERY == 0:
                checkpoints.finish()
            if step > WARM_UP_STEPS:
                step_s.append(seconds)
                stop_s.append(stopped)
                if step % FOREGROUND_EVERY == 0:
                    whole_s.append(time.perf_counter() - begun)
    step, stop, whole = median(step_s), median(stop_s), median(whole_s)
    print(f"\nstep {step:.3f} s, stop {stop:.3f} s (most {max(stop_s):.3f}), whole {whole:.3f} s")
    print(f"checkpoint: stop / step = {stop / step:.3f} (whole / step = {whole / step:.3f})")


if __name__ == "__main__":
    main(sys.argv[1:])
