"""A tensor lent to another process on the same device: on a GPU by a CUDA IPC handle, nothing is copied.

torch pickles a tensor for its own worker processes as such a handle (`torch.multiprocessing.reductions`). It holds as
long as the lender keeps the tensor.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixed_r1_ray.types import Layout

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class SharedBucket:
    """What `reopen` needs to find a bucket's bytes. From one actor of a run to another, never from a file."""

    layout: Layout
    handle: bytes


def lend(layout: Layout, packed: torch.Tensor) -> SharedBucket:
    """A handle to `packed`, which the caller must keep until nobody reads it any more."""
    from multiprocessing.reduction import ForkingPickler

    import torch.multiprocessing  # noqa: F401 (teaches the pickler about tensors)

    return SharedBucket(layout, bytes(ForkingPickler.dumps(packed)))


def reopen(bucket: SharedBucket) -> torch.Tensor:
    """The lender's bytes, uint8 (layout.packed_bytes,), to be read only."""
    return pickle.loads(bucket.handle)
