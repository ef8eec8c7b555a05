"""Weights from the first learner rank to every worker of every engine at once, in a process group of their own.

NCCL between GPUs, gloo between CPUs. The group stands beside the default one of DeepSpeed or vLLM and knows nothing of
it, so it can be left and formed anew when an engine is replaced.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

UNDER_WAY = 2  # buckets: one is sent while the next is gathered


@dataclass(frozen=True, slots=True)
class Meeting:
    """address: tcp://HOST:PORT where rank 0, the sender, listens. size: number of ranks. timeout_s: for any operation."""

    address: str
    size: int
    timeout_s: float


class BroadcastGroup:
    """One rank's membership. Raises RuntimeError (torch's) where the others do not come or answer in time."""

    def __init__(self, meeting: Meeting, rank: int, device: torch.device):
        timeout = timedelta(seconds=meeting.timeout_s)
        store, *_ = next(dist.rendezvous(meeting.address, rank, meeting.size, timeout=timeout))
        store.set_timeout(timeout)
        self._device = device
        self._group = _process_group(dist.PrefixStore("weights", store), rank, meeting.size, device, timeout)

    def send(self, packed: Iterable[torch.Tensor]) -> None:
        """Sends each tensor of bytes on the group's device while the next is made. For rank 0."""
        under_way: deque = deque()
        for tensor in packed:
            under_way.append((self._begin(tensor), tensor))
            if len(under_way) == UNDER_WAY:
                under_way.popleft()[0].wait()
        for work, _ in under_way:
            work.wait()

    def receive(self, num_bytes: int) -> torch.Tensor:
        """The next tensor that rank 0 sends, uint8 (num_bytes,)."""
        tensor = torch.empty(num_bytes, dtype=torch.uint8, device=self._device)
        self._begin(tensor).wait()
        return tensor

    def _begin(self, tensor: torch.Tensor):
        options = dist.BroadcastOptions()
        options.rootRank, options.rootTensor = 0, 0
        return self._group.broadcast([tensor], options)


def _process_group(store, rank: int, size: int, device: torch.device, timeout: timedelta):
    if device.type == "cpu":
        return dist.ProcessGroupGloo(store, rank, size, timeout)
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = timeout
    with torch.cuda.device(device):
        return dist.ProcessGroupNCCL(store, rank, size, options)
