"""Schedules of the learning rate against torch's and transformers' own, update by update."""

from __future__ import annotations

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR
from transformers import (
    get_cosine_schedule_with_warmup,
    get_cosine_with_min_lr_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from mixed_r1_ray.algo.learning_rate import rate_of_peak

PEAK, STEPS = 3e-4, 40


def rates(make, num: int) -> list[float]:
    """What a scheduler of torch gives its first `num` updates."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    scheduler = make(optimizer)
    given = []
    for _ in range(num):
        given.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return given


def ours(scheduler: str, warmup: int, num: int, floor: float = 0.0) -> list[float]:
    return [PEAK * rate_of_peak(update, scheduler, warmup, STEPS, floor) for update in range(1, num + 1)]


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_without_warm_up_they_are_torch_s_own(floor):
    linear = rates(lambda optimizer: LinearLR(optimizer, 1.0, floor, total_iters=STEPS), STEPS + 5)
    assert ours("linear", 0, STEPS + 5, floor) == pytest.approx(linear, rel=1e-9, abs=1e-15)
    cosine = rates(lambda optimizer: CosineAnnealingLR(optimizer, STEPS, eta_min=PEAK * floor), STEPS)
    assert ours("cosine", 0, STEPS, floor) == pytest.approx(cosine, rel=1e-9, abs=1e-15)
    assert ours("cosine", 0, STEPS + 3, floor)[STEPS:] == [PEAK * floor] * 3  # torch's would rise again


@pytest.mark.parametrize("warmup", [1, 7])
def test_behind_the_warm_up_they_are_transformers_and_the_warm_up_is_a_step_ahead(warmup):
    for scheduler, make in (("linear", get_linear_schedule_with_warmup), ("cosine", get_cosine_schedule_with_warmup)):
        theirs = rates(lambda optimizer, make=make: make(optimizer, warmup, STEPS), STEPS)
        mine = ours(scheduler, warmup, STEPS)
        assert mine[warmup:] == pytest.approx(theirs[warmup:], rel=1e-9, abs=1e-15)
        assert mine[:warmup] == pytest.approx(theirs[1 : warmup + 1], rel=1e-9)
        assert mine[0] > 0 and mine[STEPS - 1] > 0  # no update of the schedule is for nothing


def test_a_cosine_with_a_floor_is_transformers():
    theirs = rates(lambda o: get_cosine_with_min_lr_schedule_with_warmup(o, 5, STEPS, min_lr_rate=0.2), STEPS)
    assert ours("cosine", 5, STEPS, floor=0.2)[5:] == pytest.approx(theirs[5:], rel=1e-9)


def test_constant_stays_and_knows_no_end():
    assert ours("constant", 4, 6 + STEPS) == pytest.approx([PEAK * min(1.0, n / 4) for n in range(1, 7 + STEPS)])
