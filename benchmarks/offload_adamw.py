"""How fast AdamW updates parameters that lie in host memory (`learner.offload=optimizer`), three ways.

    python benchmarks/offload_adamw.py                          100 M float32 parameters, 1 and 2 threads
    python benchmarks/offload_adamw.py millions=50 threads=4 rounds=3

The ways take turns, round by round; rates are medians, ratios are to torch's loop on one thread. DeepSpeed's is compiled
at its first use (it wants a C++ compiler and ninja, and a minute or more); where it cannot be, it is left out. All start
from the same numbers; how far their weights are apart at the end is printed as well.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median

import torch

LEARNING_RATE, BETAS, EPSILON, WEIGHT_DECAY = 1e-3, (0.9, 0.95), 1e-8, 0.01


class Way:
    """One optimizer with a state of its own. `seconds`: of its updates."""

    def __init__(self, name: str, threads: int, make: Callable, weights: torch.Tensor):
        self.name, self.threads = name, threads
        self.parameter = torch.nn.Parameter(weights.clone())
        arguments = dict(lr=LEARNING_RATE, betas=BETAS, eps=EPSILON, weight_decay=WEIGHT_DECAY)
        self.optimizer = make([self.parameter], **arguments)
        self.seconds: list[float] = []

    def update(self, gradient: torch.Tensor) -> None:
        torch.set_num_threads(self.threads)
        self.parameter.grad = gradient
        begun = time.perf_counter()
        self.optimizer.step()
        self.seconds.append(time.perf_counter() - begun)


def torch_loop(parameters, **arguments):
    return torch.optim.AdamW(parameters, **arguments, foreach=False)


def torch_fused(parameters, **arguments):
    return torch.optim.AdamW(parameters, **arguments, fused=True)


def deepspeed_cpu(parameters, **arguments):
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    return DeepSpeedCPUAdam(parameters, **arguments, adamw_mode=True)


def ways_of(weights: torch.Tensor, threads: int) -> list[Way]:
    makers = {"torch, loop": torch_loop, "torch, fused": torch_fused, "DeepSpeed": deepspeed_cpu}
    ways = []
    for name, make in makers.items():
        for number in sorted({1, threads}):
            begun = time.perf_counter()
            try:
                ways.append(Way(name, number, make, weights))
            except Exception as error:  # whatever keeps a compiler from working
                print(f"{name}: left out, {str(error).splitlines()[0]}")
                break
            print(f"{name}, {number} threads: made in {time.perf_counter() - begun:.1f} s")
    return ways


def main(arguments: list[str]) -> None:
    settings = {"millions": 100, "threads": 2, "rounds": 5} | {
        key: int(value) for key, value in (argument.split("=", 1) for argument in arguments)
    }
    numbers = settings["millions"] * 10**6
    torch.manual_seed(0)
    weights, gradient = torch.randn(numbers) * 0.02, torch.randn(numbers) * 1e-3
    ways = ways_of(weights, settings["threads"])
    for way in ways:  # makes its state
        way.update(gradient)
        way.seconds.clear()
    for _ in range(settings["rounds"]):
        for way in ways:
            way.update(gradient)
    rates = {(way.name, way.threads): numbers / median(way.seconds) for way in ways}
    first = rates["torch, loop", 1]
    print(f"\nAdamW, {numbers / 1e6:.0f} M float32 parameters in host memory, torch {torch.__version__}\n")
    print("| way | threads | M parameters/s | ratio to the loop on one thread | GB/s at 28 bytes a parameter |")
    print("|---|---|---|---|---|")
    for (name, threads), rate in rates.items():
        print(f"| {name} | {threads} | {rate / 1e6:.0f} | {rate / first:.2f} | {28 * rate / 1e9:.1f} |")
    apart = max(float((way.parameter - ways[0].parameter).detach().abs().max()) for way in ways)
    print(f"\nlargest difference of a weight after {settings['rounds'] + 1} updates: {apart:.1e}")


if __name__ == "__main__":
    main(sys.argv[1:])
