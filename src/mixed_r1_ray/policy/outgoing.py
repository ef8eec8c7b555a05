"""A rank's weights on their way out: to the object store, to a process group, to an engine on the same device, to a file.

ZeRO-3 gathers a bucket of parameters on all ranks at once, so all of them must make the same calls in the same order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import ray
import torch
from torch import nn

from mixed_r1_ray.policy.device import free_cached_memory
from mixed_r1_ray.policy.lora import MergedParameter, merged_parameters
from mixed_r1_ray.sync.broadcast import BroadcastGroup, Meeting
from mixed_r1_ray.sync.buckets import to_buckets
from mixed_r1_ray.sync.packed import lay_out, pack
from mixed_r1_ray.sync.shared import SharedBucket, lend
from mixed_r1_ray.types import Bucket, Layout, WeightUpdate

HOST = torch.device("cpu")


class OutgoingWeights:
    """Of `model`, partitioned by ZeRO-3, under the checkpoint's names. What training never changes is sent apart."""

    def __init__(self, model: nn.Module, rank: int, device: torch.device):
        self._model, self._rank, self._device = model, rank, device
        self._constant: tuple[Bucket, ...] | None = None
        self._group: BroadcastGroup | None = None
        self._lent: list[torch.Tensor] = []

    def update(self, version: int) -> WeightUpdate | None:
        """All parameters, by the checkpoint's names, in the object store. Rank 0 returns them; all ranks must call."""
        constant, changing = self.constant(), self._stored(changing=True)
        return WeightUpdate(version, changing, constant) if self._rank == 0 else None

    def constant(self) -> tuple[Bucket, ...]:
        """What training never changes, in the object store, put there once. On rank 0; all ranks must call."""
        if self._constant is None:
            self._constant = self._stored(changing=False)
        return self._constant

    def join(self, meeting: Meeting) -> None:
        """Enters the group in which `broadcast` sends. For rank 0."""
        self._group = BroadcastGroup(meeting, 0, self._device)

    def broadcast(self) -> None:
        """Sends what training changes to all members of the group, in the buckets of `layouts`. All ranks must call."""
        packed = (packed for _, packed in self._packed_buckets(True))
        if self._rank == 0:
            self._group.send(packed)
        else:
            deque(packed, maxlen=0)

    def lend(self) -> tuple[SharedBucket, ...]:
        """What training changes, lent to an engine on the same device until `take_back`. All ranks must call."""
        self._lent = [packed for _, packed in self._packed_buckets(True, everywhere=True)]
        return tuple(lend(layout, packed) for layout, packed in zip(self.layouts(), self._lent, strict=True))

    def take_back(self) -> None:
        """Frees what was lent."""
        self._lent = []
        free_cached_memory()

    def layouts(self) -> tuple[Layout, ...]:
        """Of the buckets of what training changes."""
        return tuple(_layout(bucket) for bucket in self._buckets(changing=True))

    def _stored(self, changing: bool) -> tuple[Bucket, ...]:
        buckets = self._packed_buckets(changing)
        return tuple(Bucket(layout, ray.put(packed.cpu().numpy())) for layout, packed in buckets)

    def _packed_buckets(self, changing: bool, everywhere: bool = False) -> Iterator[tuple[Layout, torch.Tensor]]:
        """Each bucket of what training changes, or never does, as bytes on the device: on rank 0, or on every rank."""
        for bucket in self._gathered_buckets(changing):
            if everywhere or self._rank == 0:
                layout = _layout(bucket)
                yield layout, pack(layout, (one.value() for one in bucket), self._device)

    def gathered(self) -> dict[str, torch.Tensor]:
        """All parameters on rank 0 in host memory, nothing elsewhere. All ranks must call."""
        return {
            one.name: one.value().to(HOST, copy=True)
            for changing in (True, False)
            for bucket in self._gathered_buckets(changing)
            for one in bucket
            if self._rank == 0
        }

    def _gathered_buckets(self, changing: bool) -> Iterator[list[MergedParameter]]:
        """Buckets of parameters, each whole on every rank until the next one is asked for."""
        import deepspeed

        for bucket in self._buckets(changing):
            with deepspeed.zero.GatheredParameters([source for one in bucket for source in one.sources]):
                yield bucket

    def _buckets(self, changing: bool) -> Iterator[list[MergedParameter]]:
        parameters = [one for one in merged_parameters(self._model) if one.changes == changing]
        return to_buckets(parameters, size=_num_bytes)


def _layout(bucket: Sequence[MergedParameter]) -> Layout:
    return lay_out([(one.name, one.sources[0].dtype, one.sources[0].ds_shape) for one in bucket])


def _num_bytes(merged: MergedParameter) -> int:
    return sum(source.ds_numel * source.element_size() for source in merged.sources)
