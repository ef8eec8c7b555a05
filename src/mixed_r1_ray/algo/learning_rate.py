"""The learning rate of each optimizer step: a function of the step's number alone, so a resumed run has the same.

Of the peak rate, at update n = 1, 2, ... with W warm-up steps, T steps in all and the floor m (`min_ratio`):

    n <= W        n / W
    W < n <= T    m + (1 - m) f(x),  x = (n - 1 - W) / (T - W)
    n > T         m

    linear  f(x) = 1 - x        cosine  f(x) = (1 + cos(pi x)) / 2        constant  1 after the warm-up, whatever T

After the warm-up that is what `get_linear_schedule_with_warmup`, `get_cosine_schedule_with_warmup` and
`get_cosine_with_min_lr_schedule_with_warmup` of transformers give to their step n - 1. The warm-up is a step ahead of
theirs (choice): their first update has a rate of 0.
"""

from __future__ import annotations

from math import cos, pi


def rate_of_peak(update: int, scheduler: str, warmup_steps: int, steps: int, min_ratio: float) -> float:
    """What part of the peak the update with this number, from 1, has; scheduler: constant, linear or cosine."""
    if update <= warmup_steps:
        return update / warmup_steps
    if scheduler == "constant":
        return 1.0
    if update > steps:
        return min_ratio
    done = (update - 1 - warmup_steps) / (steps - warmup_steps)
    left = 1 - done if scheduler == "linear" else (1 + cos(pi * done)) / 2
    return min_ratio + (1 - min_ratio) * left
