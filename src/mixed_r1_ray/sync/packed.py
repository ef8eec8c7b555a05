"""A bucket of parameters as one run of bytes with its checksum at the end: what every way of transfer carries.

    tensor 0 | padding | tensor 1 | padding | … | checksum

Tensors begin at multiples of 16 bytes. The checksum is the sum of all bytes before it, read as 64-bit integers, modulo
2^64: it differs after any change to one such integer. Names, shapes and types travel apart, in the bucket's `Layout`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING

from mixed_r1_ray.guard import NumericsError
from mixed_r1_ray.types import Layout, Slot

if TYPE_CHECKING:
    import numpy as np
    import torch

ALIGNMENT = 16  # bytes; a multiple of the checksum's 8
CHECKSUM_BYTES = 8


def lay_out(parameters: Sequence[tuple[str, torch.dtype, Sequence[int]]]) -> Layout:
    """The layout of parameters given as (name, dtype, shape)."""
    slots, begin = [], 0
    for name, dtype, shape in parameters:
        size = prod(shape) * dtype.itemsize
        slots.append(Slot(name, str(dtype).removeprefix("torch."), tuple(shape), begin, size))
        begin += -(-size // ALIGNMENT) * ALIGNMENT
    return Layout(tuple(slots), begin, begin + CHECKSUM_BYTES)


def pack(layout: Layout, tensors: Iterable[torch.Tensor], device: torch.device) -> torch.Tensor:
    """The run of bytes on `device`, uint8 (layout.packed_bytes,). tensors: in the layout's order."""
    import torch

    packed = torch.zeros(layout.packed_bytes, dtype=torch.uint8, device=device)
    for slot, tensor in zip(layout.slots, tensors, strict=True):
        _view(packed, slot).copy_(tensor)
    packed[layout.num_bytes :].view(torch.int64).copy_(_checksum(packed, layout))
    return packed


def unpack(layout: Layout, packed: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tensors that share the memory of `packed`, to be read only.

    Raises NumericsError, before the first, where the bytes are not those that were packed.
    """
    import torch

    if packed.numel() != layout.packed_bytes:
        raise NumericsError(f"{_said(layout)} arrived as {packed.numel()} bytes instead of {layout.packed_bytes}")
    sent = packed[layout.num_bytes :].view(torch.int64)
    if not torch.equal(sent[0], _checksum(packed, layout)):
        raise NumericsError(f"{_said(layout)} did not arrive as they were sent: the checksum differs")
    for slot in layout.slots:
        yield slot.name, _view(packed, slot)


def from_store(array: np.ndarray) -> torch.Tensor:
    """An array of bytes as a tensor that shares its memory: to be read only, as the object store's arrays are."""
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(array)


def _view(packed: torch.Tensor, slot: Slot) -> torch.Tensor:
    import torch

    return packed[slot.begin : slot.begin + slot.num_bytes].view(getattr(torch, slot.dtype)).view(slot.shape)


def _checksum(packed: torch.Tensor, layout: Layout) -> torch.Tensor:
    import torch

    return packed[: layout.num_bytes].view(torch.int64).sum()


def _said(layout: Layout) -> str:
    names = [slot.name for slot in layout.slots]
    return f"the weights {names[0]} to {names[-1]}" if names else "a bucket without weights"
