"""Tensors as arrays that the object store keeps and hands out without a copy."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class WireTensor:
    """A tensor's values; NumPy has no bfloat16, so its bits travel as uint16 beside the name of their type."""

    dtype: str  # torch's name, `float32`
    array: np.ndarray


def to_wire(tensor: torch.Tensor) -> WireTensor:
    """A CPU tensor as an array that shares its memory."""
    import torch

    name = str(tensor.dtype).removeprefix("torch.")
    bits = tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor
    return WireTensor(name, bits.numpy())


def from_wire(wire: WireTensor) -> torch.Tensor:
    """The tensor again, sharing the array's memory: to be read only, as the object store's arrays are."""
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(wire.array).view(getattr(torch, wire.dtype))
