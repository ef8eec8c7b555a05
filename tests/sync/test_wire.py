from __future__ import annotations

import numpy as np
import pytest
import torch

from mixed_r1_ray.sync.wire import from_wire, to_wire


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64])
def test_a_tensor_comes_back_bit_for_bit(dtype):
    tensor = torch.tensor([[0.0, -0.0, 1.5], [3.1415926, -65504.0, 1e-3]]).to(dtype)
    back = from_wire(to_wire(tensor))
    assert back.dtype == dtype and back.shape == tensor.shape
    assert back.view(torch.uint8).tolist() == tensor.view(torch.uint8).tolist()


def test_bfloat16_travels_as_its_bits():
    wire = to_wire(torch.tensor([1.0, -2.0], dtype=torch.bfloat16))
    assert wire.dtype == "bfloat16" and wire.array.dtype == np.uint16
    assert wire.array.tolist() == [0x3F80, 0xC000]  # sign, 8 bits of exponent, 7 of mantissa


def test_nothing_is_copied_and_read_only_memory_is_accepted(recwarn):
    array = np.arange(4, dtype=np.float32)
    array.flags.writeable = False
    wire = to_wire(torch.zeros(1))
    tensor = from_wire(type(wire)("float32", array))
    assert tensor.data_ptr() == array.ctypes.data
    assert not recwarn.list
