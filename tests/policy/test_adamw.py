"""The optimizer against AdamW written out from its paper (arXiv 1711.05101, algorithm 2), in float64."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from apart_device import apart_device

from mixed_r1_ray.config import LearnerConfig
from mixed_r1_ray.policy.adamw import fresh_state, make_adamw, step_count
from mixed_r1_ray.policy.learner import PolicyLearner, num_threads

LEARNER = LearnerConfig(learning_rate=1e-2, betas=(0.9, 0.95), weight_decay=0.1)
NUMBERS = 100_003  # no multiple of a vector's length


def gradients(count: int) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    return [torch.randn(NUMBERS, generator=random) * 10.0 ** -(number % 4) for number in range(count)]


def weights() -> torch.Tensor:
    return torch.randn(NUMBERS, generator=torch.Generator().manual_seed(0)) * 0.02


def written_out(updates: list[torch.Tensor]) -> torch.Tensor:
    found, first, second = weights().double(), torch.zeros(NUMBERS).double(), torch.zeros(NUMBERS).double()
    for step, gradient in enumerate(map(torch.Tensor.double, updates), start=1):
        first = 0.9 * first + 0.1 * gradient
        second = 0.95 * second + 0.05 * gradient**2
        direction = (first / (1 - 0.9**step)) / ((second / (1 - 0.95**step)).sqrt() + 1e-8)
        found = found - 1e-2 * (direction + 0.1 * found)
    return found


def started() -> tuple[torch.Tensor, torch.optim.AdamW]:
    """As DeepSpeed has it: the parameters that it is made with are not those that it updates."""
    shard = weights().requires_grad_()
    optimizer = make_adamw([torch.nn.Parameter(torch.zeros(1))], LEARNER)
    optimizer.param_groups[0]["params"] = [shard]
    optimizer.state[shard] = fresh_state(shard)
    return shard, optimizer


def test_an_update_is_adamw_as_written_to_float32_rounding():
    shard, optimizer = started()
    for gradient in gradients(20):
        shard.grad = gradient
        optimizer.step()
    apart = (shard.detach().double() - written_out(gradients(20))).abs()
    assert apart.max() < 1e-6 and optimizer.param_groups[0]["fused"]


def test_it_goes_on_exactly_from_what_a_checkpoint_keeps():
    whole, optimizer = started()
    for gradient in gradients(7):
        whole.grad = gradient
        optimizer.step()
    first, optimizer = started()
    for gradient in gradients(3):
        first.grad = gradient
        optimizer.step()
    kept = {name: tensor.clone() for name, tensor in optimizer.state[first].items()}
    assert int(kept.pop("step")) == 3
    again, optimizer = started()
    again.data.copy_(first.data)
    optimizer.state[again] = kept | {"step": step_count(again, 3)}
    for gradient in gradients(7)[3:]:
        again.grad = gradient
        optimizer.step()
    assert torch.equal(again, whole)


def test_the_count_of_updates_lies_beside_what_it_counts():
    """Fused AdamW reads it there."""
    with apart_device() as device:
        shard, here = torch.zeros(3, device=device), torch.zeros(3)
        assert {part.device for part in fresh_state(shard).values()} == {device}
        learner = object.__new__(PolicyLearner)
        state = {shard: fresh_state(shard), here: fresh_state(here)}
        learner.engine = SimpleNamespace(optimizer=SimpleNamespace(optimizer=SimpleNamespace(state=state)))
        learner.set_optimizer_steps(4)
        assert learner.optimizer_steps() == 4
        assert [part["step"].device for part in state.values()] == [shard.device, here.device]


@pytest.mark.parametrize(
    ("cpus", "threads", "expected"), [(4, None, 4), (0.4, None, 1), (3.9, None, 3), (0.3, 2, 2), (8, 1, 1)]
)
def test_a_rank_computes_with_the_cpus_that_it_reserves_unless_told_otherwise(cpus, threads, expected):
    assert num_threads(LearnerConfig(cpus_per_worker=cpus, threads=threads)) == expected


def test_threads_change_nothing():
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            shard, optimizer = started()
            for gradient in gradients(3):
                shard.grad = gradient
                optimizer.step()
        finally:
            torch.set_num_threads(1)
        found.append(shard.detach())
    assert torch.equal(*found)
