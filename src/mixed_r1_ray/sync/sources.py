"""Where the workers of an engine read weights from. A source is small enough, or shared memory, to be given to each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mixed_r1_ray.sync.packed import from_store, unpack
from mixed_r1_ray.sync.shared import SharedBucket, reopen
from mixed_r1_ray.types import Layout

if TYPE_CHECKING:
    import numpy as np
    import torch

    from mixed_r1_ray.sync.broadcast import BroadcastGroup


class WeightSource(Protocol):
    """Weights on their way into an engine."""

    def tensors(self, group: BroadcastGroup | None) -> Iterator[tuple[str, torch.Tensor]]:
        """The checkpoint's names and the tensors, to be read only. group: the one that the engine's worker is in."""


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """Buckets that lie in the object store, read where they lie."""

    buckets: tuple[tuple[Layout, np.ndarray], ...]

    def tensors(self, group: BroadcastGroup | None) -> Iterator[tuple[str, torch.Tensor]]:
        for layout, content in self.buckets:
            yield from unpack(layout, from_store(content))


@dataclass(frozen=True, slots=True)
class SharedWeights:
    """Buckets in the memory of a learner on the same device, read where they lie."""

    buckets: tuple[SharedBucket, ...]

    def tensors(self, group: BroadcastGroup | None) -> Iterator[tuple[str, torch.Tensor]]:
        for bucket in self.buckets:
            yield from unpack(bucket.layout, reopen(bucket))


@dataclass(frozen=True, slots=True)
class BroadcastWeights:
    """Buckets that the first learner rank is sending, in this order."""

    layouts: tuple[Layout, ...]

    def tensors(self, group: BroadcastGroup | None) -> Iterator[tuple[str, torch.Tensor]]:
        for layout in self.layouts:
            yield from unpack(layout, group.receive(layout.packed_bytes))
