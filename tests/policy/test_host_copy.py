"""Host memory for what lies on a device: values come back bit for bit, into the same tensors, through the same buffers."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from apart_device import apart_device, move
from torch.utils._python_dispatch import TorchDispatchMode

from mixed_r1_ray.config import ModelConfig
from mixed_r1_ray.policy import host_copy as module
from mixed_r1_ray.policy.host_copy import HostCopy, make_room
from mixed_r1_ray.policy.loading import load_policy
from mixed_r1_ray.policy.reference import ReferenceWorker
from mixed_r1_ray.types import Group, Rollout


class Held:
    """On a device: a flat buffer with views as DeepSpeed has it, float32 state, a frozen weight, gradients."""

    def __init__(self, device: torch.device):
        random = torch.Generator().manual_seed(0)
        self.flat = torch.randn(1001, generator=random).bfloat16().to(device)
        self.views = [self.flat.narrow(0, 0, 400), self.flat.narrow(0, 400, 601).narrow(0, 1, 600)]
        self.state = torch.randn(333, generator=random).to(device)
        self.frozen = torch.randn(20, 7, generator=random).to(device)
        self.gradients = torch.ones(1001).to(device)

    def take_off(self, host: HostCopy) -> None:
        host.take_off([self.flat, *self.views, self.state], [self.frozen], [self.gradients])

    def kept(self) -> list[torch.Tensor]:
        return [self.flat, *self.views, self.state, self.frozen]

    def values(self) -> list[torch.Tensor]:
        return [tensor.cpu().clone() for tensor in self.kept()]


PIECE_BYTES = module.PIECE_BYTES
NUM_BYTES = 1001 * 2 + 333 * 4 + 20 * 7 * 4


@pytest.fixture(params=[64, 4096, module.PIECE_BYTES])
def piece_bytes(request, monkeypatch) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", request.param)


def same_bits(here: torch.Tensor, there: torch.Tensor) -> bool:
    return torch.equal(here.contiguous().view(torch.uint8), there.contiguous().view(torch.uint8))


def test_all_leaves_the_device_and_comes_back_bit_for_bit_into_the_same_tensors(piece_bytes):
    with apart_device() as device:
        held, host = Held(device), HostCopy(device)
        held.state[3] = float("nan")
        before = held.values()
        held.take_off(host)
        left = sum(tensor.untyped_storage().nbytes() for tensor in (*held.kept(), held.gradients))
        assert left == 0
        host.bring_back()
        assert all(map(same_bits, held.values(), before))
        held.views[1][5] = 77.0  # still one memory
        assert held.flat.cpu()[406] == 77.0


def test_a_storage_is_held_once_and_what_is_dropped_not_at_all(piece_bytes):
    with apart_device() as device:
        held, host = Held(device), HostCopy(device)
        assert host.num_bytes == 0
        held.take_off(host)
        assert host.num_bytes == NUM_BYTES
        host.bring_back()
        assert held.gradients.cpu().tolist() == [0.0] * 1001


def test_ten_turns_go_through_the_buffers_of_the_first(piece_bytes):
    with apart_device() as device:
        held, host, buffers = Held(device), HostCopy(device), []
        for turn in range(10):
            held.flat += turn
            held.state *= -1.5
            before = held.values()
            held.take_off(host)
            buffers.append([piece.data_ptr() for piece in host._pieces])
            host.bring_back()
            assert all(map(same_bits, held.values(), before))
        assert all(pointers == buffers[0] for pointers in buffers) and host.num_bytes == NUM_BYTES


def test_what_never_changes_goes_to_the_host_once():
    with apart_device() as device:
        held, host = Held(device), HostCopy(device)
        first = held.frozen.cpu().clone()
        held.take_off(host)
        host.bring_back()
        held.frozen.zero_()  # against the promise: what comes back is the copy of the first turn
        held.state.zero_()
        held.take_off(host)
        host.bring_back()
        assert same_bits(held.frozen.cpu(), first) and held.state.cpu().abs().max() == 0


def test_what_is_said_to_change_is_copied_though_a_view_of_it_is_said_not_to():
    with apart_device() as device:
        flat, host = torch.arange(6.0, device=device), HostCopy(device)
        for value in (1.0, 2.0):
            flat.fill_(value)
            host.take_off([flat], constant=[flat[:3]])
            host.bring_back()
            assert flat.tolist() == [value] * 6


def test_tensors_that_are_others_by_now_are_copied_into_new_room():
    with apart_device() as device:
        host = HostCopy(device)
        for number in (5, 9):
            frozen = torch.arange(float(number), device=device)
            host.take_off(constant=[frozen])
            host.bring_back()
            assert frozen.tolist() == list(map(float, range(number))) and host.num_bytes == 4 * number


def test_nothing_is_taken_off_twice():
    with apart_device() as device:
        held, host = Held(device), HostCopy(device)
        held.take_off(host)
        with pytest.raises(AssertionError, match="nothing is there"):
            held.take_off(host)


class Copies(TorchDispatchMode):
    """Notes every copy in `log`."""

    def __init__(self, log: list):
        super().__init__()
        self.log = log

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.copy_.default:
            self.log.append("copy" if args[2:] == (True,) else "blocking copy")
        return function(*args, **(kwargs or {}))


def test_copies_are_waited_for_once_before_memory_is_freed_or_used():
    log = []

    class Watched(HostCopy):
        def _synchronize(self) -> None:
            log.append(sum(tensor.untyped_storage().nbytes() for tensor in (held.flat, held.state, held.frozen)))

    with apart_device() as device:
        held, host = Held(device), Watched(device)
        with Copies(log):
            held.take_off(host)
            assert log == ["copy"] * 3 + [NUM_BYTES]
            log.clear()
            host.bring_back()
            assert log == ["copy"] * 3 + [NUM_BYTES]


@pytest.mark.parametrize("pinned", [True, False])
def test_room_is_pinned_for_a_gpu_in_pieces_that_torch_does_not_round_up(monkeypatch, pinned):
    asked, empty = [], torch.empty

    def recorded(size, dtype, pin_memory):
        asked.append((size, pin_memory))
        return empty(size, dtype=dtype)

    monkeypatch.setattr(module, "PIECE_BYTES", 1024)
    monkeypatch.setattr(torch, "empty", recorded)
    make_room(2500, pinned)
    assert asked == [(1024, pinned), (1024, pinned), (452, pinned)]
    asked.clear()
    assert make_room(2048, pinned) and len(asked) == 2 and make_room(0, pinned) == []
    assert PIECE_BYTES.bit_count() == 1  # a power of two


def test_room_for_a_gpu_is_pinned(monkeypatch):
    asked = []
    monkeypatch.setattr(module, "make_room", lambda num_bytes, pinned: asked.append((num_bytes, pinned)) or [])
    monkeypatch.setattr(HostCopy, "_runs", lambda self, first: [])
    monkeypatch.setattr(HostCopy, "_synchronize", lambda self: None)
    for name in ("cuda:0", "cpu"):
        HostCopy(torch.device(name)).take_off([torch.zeros(3)])
    assert asked == [(12, True), (12, False)]


def test_a_reference_that_had_turns_answers_the_same_bits(tiny_checkpoints):
    worker = object.__new__(ReferenceWorker.__ray_metadata__.modified_class)
    policy = worker.policy = load_policy(ModelConfig(path=tiny_checkpoints["internvl"]), 0.8).eval().requires_grad_(False)
    inputs = policy.adapter.encode(policy.adapter.prompt_text("Where?", 1), [np.zeros((56, 56, 3), np.uint8)])
    group = Group("p0", inputs.input_ids, (Rollout(0, np.array([20, 21, 22], np.int32), None, None, "", True),))
    with apart_device() as device:
        move(policy)
        worker.device, worker.host = SimpleNamespace(type="cpu"), HostCopy(device)
        policy.to = lambda device: None  # it is there
        _, (before,) = worker.logprobs(inputs, group)
        for _ in range(2):
            assert worker.sleep() is None
            parts = [*policy.parameters(), *policy.buffers()]
            left = sum(part.untyped_storage().nbytes() for part in parts)
            assert left == 0
            worker.wake()
            _, (after,) = worker.logprobs(inputs, group)
            assert after.tobytes() == before.tobytes()
        held = {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in parts}
        assert worker.host.num_bytes == sum(held.values())
