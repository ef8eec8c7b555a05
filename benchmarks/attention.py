"""Attention over packed groups in segments against the same through masks, forward and backward, on a CPU.

    python benchmarks/attention.py # two minutes; rounds=N for other than 7, threads=N for other than 1

Both sides attend over the same groups, take turns, and are compared before they are timed: the benchmark stops where
outputs or gradients differ. Medians of CPU seconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from masked_attention import MaskedAttention

from mixed_r1_ray.policy.group_attention import GroupAttention

HEAD_SIZE, LIMIT = 64, 2e-5


@dataclass(frozen=True)
class Case:
    """Groups of G responses: lengths of prompts and responses, drawn between two bounds."""

    name: str
    groups: int
    group_size: int
    prompt: tuple[int, int]
    response: tuple[int, int]
    heads: int
    key_heads: int
    head_size: int = HEAD_SIZE


CASES = (
    Case("quickstart", 32, 8, (25, 45), (8, 48), 4, 4, 32),
    Case("lengths far apart", 8, 8, (25, 60), (8, 256), 4, 4, 32),
    Case("one large group", 1, 6, (1024, 1024), (100, 512), 14, 2),
    Case("three of a picture", 3, 8, (256, 400), (64, 256), 14, 2),
)
Tensors = list[torch.Tensor]


class Sides:
    """One case as each side lays it out: one sequence, or rows padded to the longest."""

    def __init__(self, case: Case):
        random = np.random.default_rng(0)
        self.prompts = random.integers(case.prompt[0], case.prompt[1] + 1, case.groups).tolist()
        self.responses = random.integers(case.response[0], case.response[1] + 1, (case.groups, case.group_size)).tolist()
        self.width = max(p + sum(row) for p, row in zip(self.prompts, self.responses, strict=True))
        self.total = sum(self.prompts) + sum(map(sum, self.responses))
        generator = torch.Generator().manual_seed(0)
        shapes = [(1, heads, self.total, case.head_size) for heads in (case.heads, case.key_heads, case.key_heads)]
        self.flat = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
        self.place = self._places()
        self.rows = [self._padded(part.detach()).requires_grad_() for part in self.flat]
        self.weights = torch.linspace(-1, 1, self.total * case.heads * case.head_size).view(1, self.total, case.heads, -1)
        self.segments = GroupAttention.plan(self.prompts, self.responses)
        self.masks = MaskedAttention.plan(self.prompts, self.responses, self.width)

    def _places(self) -> torch.Tensor:
        """(total,): where each token of the one sequence stands in the padded rows, flattened."""
        starts = [row * self.width for row in range(len(self.prompts))]
        of_prompts = [torch.arange(start, start + p) for start, p in zip(starts, self.prompts, strict=True)]
        of_responses = [
            torch.arange(start + p, start + p + sum(row))
            for start, p, row in zip(starts, self.prompts, self.responses, strict=True)
        ]
        return torch.cat(of_prompts + of_responses)

    def _padded(self, part: torch.Tensor) -> torch.Tensor:
        """(1, H, total, D) -> (rows, H, width, D)"""
        padded = part.new_zeros(part.shape[1], len(self.prompts) * self.width, part.shape[3])
        padded[:, self.place] = part[0]
        return padded.unflatten(1, (len(self.prompts), self.width)).transpose(0, 1).contiguous()

    def in_segments(self) -> Tensors:
        output = self.segments(*self.flat)
        return [output, *torch.autograd.grad((output * self.weights).sum(), self.flat)]

    def through_masks(self) -> Tensors:
        output = self.masks(*self.rows).flatten(0, 1)[self.place].unsqueeze(0)
        grads = torch.autograd.grad((output * self.weights).sum(), self.rows)
        return [output, *(grad.transpose(1, 2).flatten(0, 1)[self.place].transpose(0, 1).unsqueeze(0) for grad in grads)]


def seconds(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def main(rounds: int = 7, threads: int = 1) -> None:
    torch.set_num_threads(threads)
    print("| case | tokens | padded rows | in segments | through masks | masks / segments |\n|" + "---|" * 6)
    for case in CASES:
        sides = Sides(case)
        for ours, theirs in zip(sides.in_segments(), sides.through_masks(), strict=True):
            if (worst := (ours - theirs).abs().max().item()) > LIMIT * theirs.abs().max().item():
                sys.exit(f"{case.name}: the two differ by {worst:.1e}")
        taken = [(seconds(sides.in_segments), seconds(sides.through_masks)) for _ in range(rounds)]
        ours, theirs = (median(side) for side in zip(*taken, strict=True))
        padded = len(sides.prompts) * sides.width
        ratio = median(theirs / ours for ours, theirs in taken)
        print(f"| {case.name} | {sides.total} | {padded} | {ours:.3f} | {theirs:.3f} | **{ratio:.2f}** |", flush=True)


if __name__ == "__main__":
    main(**{name: int(value) for name, value in (word.split("=") for word in sys.argv[1:])})
