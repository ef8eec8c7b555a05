"""A tensor lent to another process on the same device: on a GPU by a CUDA IPC handle, nothing is copied.

It is the handle by which torch gives tensors to its own worker processes (`torch.multiprocessing.reductions`). It holds
as long as the lender keeps the tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixed_r1_ray.types import Layout

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class SharedBucket:
    """A bucket's bytes in another process: `rebuild(*handle)` opens them."""

    layout: Layout
    rebuild: Callable
    handle: tuple


def lend(layout: Layout, packed: torch.Tensor) -> SharedBucket:
    """A handle to `packed`, which the caller must keep until nobody reads it any more."""
    from torch.multiprocessing.reductions import reduce_storage, reduce_tensor

    reduced = reduce_tensor(packed) if packed.is_cuda else reduce_storage(packed.untyped_storage())
    return SharedBucket(layout, *reduced)


def reopen(bucket: SharedBucket) -> torch.Tensor:
    """The lender's bytes, uint8 (layout.packed_bytes,), to be read only."""
    import torch

    opened = bucket.rebuild(*bucket.handle)
    return opened if isinstance(opened, torch.Tensor) else torch.empty(0, dtype=torch.uint8).set_(opened)
