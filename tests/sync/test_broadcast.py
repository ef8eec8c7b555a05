"""A group of one sender and several receivers, each a process, over gloo."""

from __future__ import annotations

import socket
import time

import pytest
import torch
import torch.multiprocessing as multiprocessing

from mixed_r1_ray.sync.broadcast import BroadcastGroup, Meeting

CPU = torch.device("cpu")
SIZES = (7, 1, 4096, 33)


def meeting(size: int, timeout_s: float = 60.0) -> Meeting:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Meeting(f"tcp://127.0.0.1:{probe.getsockname()[1]}", size, timeout_s)


def tensors(round_: int):
    return (torch.full((size,), 10 * round_ + number, dtype=torch.uint8) for number, size in enumerate(SIZES))


def member(where: Meeting, rank: int, answers) -> None:
    torch.set_num_threads(1)
    group = BroadcastGroup(where, rank, CPU)
    for round_ in range(2):
        if rank == 0:
            group.send(tensors(round_))
        else:
            answers.put((rank, round_, [group.receive(size).tolist() for size in SIZES]))


def test_all_receive_every_tensor_in_order_in_every_round():
    context, where = multiprocessing.get_context("spawn"), meeting(3)
    answers = context.Queue()
    members = [context.Process(target=member, args=(where, rank, answers)) for rank in range(3)]
    for one in members:
        one.start()
    received = sorted(answers.get(timeout=120) for _ in range(4))
    for one in members:
        one.join(60)
        assert one.exitcode == 0
    sent = {round_: [tensor.tolist() for tensor in tensors(round_)] for round_ in range(2)}
    assert received == [(rank, round_, sent[round_]) for rank in (1, 2) for round_ in range(2)]


def test_a_member_that_does_not_come_is_not_waited_for_for_ever():
    begun = time.monotonic()
    with pytest.raises(RuntimeError):
        BroadcastGroup(meeting(2, timeout_s=2.0), 0, CPU)
    assert time.monotonic() - begun < 60
