"""What a step of the quickstart takes with other numbers of threads, another way of waiting, and more at once.

    python benchmarks/threads.py                                        8 minutes; nothing else may run
    python benchmarks/threads.py reference.threads=2 learner.threads=1,reference.threads=2 early spinning steps=15

Each argument is one more run, beside one as configured: keys of the configuration with commas between them, `early`
(learners begin while the reference still judges) or `spinning` (OpenMP threads spin while they wait, as libgomp has it unless
it is told otherwise). The runs live side by side and take turns, step by step, with the same prompts, seeds and weights (the
learning rate is 0), so the same tokens. Medians, and of step times the median of the ratios of one turn. The first time
the quickstart's model is made, which takes some minutes more.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median

from loop import Step, benchmark_config, started_loop
from paired import print_head, print_row
from process import Process

WARM_UP_STEPS = 2
PAUSE_S = 0.3  # in which a run prepares its next batch
CONFIGURED = "as configured"
CASES = ["reference.threads=2", "reference.num_workers=2", "early", "spinning"]
PHASES = ("generate", "reference", "learn", "sync")
SPINNING = {"GOMP_SPINCOUNT": "300000"}  # libgomp's own count


def main(arguments: list[str]) -> None:
    steps = [argument for argument in arguments if argument.startswith("steps=")]
    cases = [CONFIGURED, *([argument for argument in arguments if argument not in steps] or CASES)]
    count = int(steps[-1].split("=")[1]) if steps else 11
    taken: dict[str, list[Step]] = {case: [] for case in cases}
    with ExitStack() as stack:
        runs = {case: stack.enter_context(_started(case, number)) for number, case in enumerate(cases)}
        for step in range(1, count + WARM_UP_STEPS + 1):
            for case, run in runs.items():
                taken[case].append(run.ask(step))
                assert taken[case][-1].lengths == taken[CONFIGURED][-1].lengths, f"step {step}: {case} sampled other tokens"
                time.sleep(PAUSE_S)
        for run in runs.values():
            run.ask(None)
    _print_table({case: of_case[WARM_UP_STEPS:] for case, of_case in taken.items()})


def _started(case: str, number: int) -> Process:
    words = case.split(",") if case != CONFIGURED else []
    settings = ["learner.learning_rate=0", "learner.warmup_steps=0", "reference.num_workers=1", f"run.name=threads_{number}"]
    settings += [word for word in words if "=" in word]
    environment = SPINNING if "spinning" in words else {}
    return Process(serve_loop, settings, "early" in words, environment=environment)


def serve_loop(receive: Callable, send: Callable, settings: list[str], early: bool) -> None:
    """Answers each number with that step of a run with these settings, until it is None."""
    if early:
        _await_no_reference()
    with started_loop(benchmark_config(settings)) as loop:
        send("ready")
        while (step := receive()) is not None:
            send(loop.step(step))
    send("ended")


def _await_no_reference() -> None:
    """Learners then wait for the log-probabilities of a microbatch when they come to it."""
    from mixed_r1_ray.policy.reference_pool import ReferencePool

    ReferencePool.wait = lambda self, judged, what: None


def _print_table(taken: dict[str, list[Step]]) -> None:
    print_head("run", *(f"{phase}, s" for phase in PHASES), "step, s", "CPU, s", f"step / {CONFIGURED}")
    for case, steps in taken.items():
        phases = [median(step.metrics[f"time/{phase}_s"] for step in steps) for phase in PHASES]
        whole, cpu = median(step.seconds for step in steps), median(step.cpu_seconds for step in steps)
        ratio = median(one.seconds / other.seconds for one, other in zip(steps, taken[CONFIGURED], strict=True))
        print_row(case, *(f"{seconds:.2f}" for seconds in (*phases, whole, cpu)), f"**{ratio:.3f}**")


if __name__ == "__main__":
    main(sys.argv[1:])
