"""Parameters as one run of bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from weight_buckets import CPU

from mixed_r1_ray.guard import NumericsError
from mixed_r1_ray.sync.packed import from_store, lay_out, pack, unpack

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int64]
shapes = st.lists(st.integers(0, 5), max_size=3)
TENSORS = {
    "first": torch.tensor([[0.0, -0.0, 1.5], [3.1415926, -65504.0, 1e-3]]),
    "second": torch.tensor([1.0, -2.0], dtype=torch.bfloat16),
    "third": torch.tensor(-7),
}


def laid_out(tensors):
    return lay_out([(name, tensor.dtype, tensor.shape) for name, tensor in tensors.items()])


@given(st.lists(st.tuples(shapes, st.sampled_from(DTYPES)), max_size=8))
def test_tensors_come_back_bit_for_bit_in_order(kinds):
    made = torch.Generator().manual_seed(0)
    tensors = {
        f"p{number}": (torch.randn(shape, generator=made) * 100).to(dtype) for number, (shape, dtype) in enumerate(kinds)
    }
    layout = laid_out(tensors)
    back = list(unpack(layout, pack(layout, tensors.values(), CPU)))
    assert [name for name, _ in back] == list(tensors)
    for name, tensor in back:
        assert tensor.dtype == tensors[name].dtype and tensor.shape == tensors[name].shape
        assert tensor.contiguous().view(-1).view(torch.uint8).tolist() == tensors[name].view(-1).view(torch.uint8).tolist()


def test_bytes_lie_where_the_layout_says():
    layout = laid_out(TENSORS)
    assert [(slot.begin, slot.num_bytes) for slot in layout.slots] == [(0, 24), (32, 4), (48, 8)]
    assert (layout.num_bytes, layout.packed_bytes) == (64, 72)
    array = pack(layout, TENSORS.values(), CPU).numpy()
    assert array[:24].view(np.float32).tolist() == TENSORS["first"].flatten().tolist()
    assert array[32:36].view(np.uint16).tolist() == [0x3F80, 0xC000]  # bfloat16: sign, 8 bits of exponent, 7 of mantissa
    assert array[48:56].view(np.int64).tolist() == [-7]


def test_the_checksum_is_the_sum_of_64_bit_integers_modulo_two_to_the_64():
    layout = laid_out(TENSORS)
    array = pack(layout, TENSORS.values(), CPU).numpy()
    words = [int.from_bytes(array[begin : begin + 8].tobytes(), "little") for begin in range(0, 64, 8)]
    assert int.from_bytes(array[64:].tobytes(), "little") == sum(words) % 2**64


@given(st.integers(0, 71), st.integers(1, 255))
def test_any_other_byte_is_found_before_a_tensor_is_handed_out(place, change):
    layout = laid_out(TENSORS)
    packed = pack(layout, TENSORS.values(), CPU)
    packed[place] ^= change
    with pytest.raises(NumericsError, match="the weights first to third did not arrive as they were sent"):
        next(unpack(layout, packed))


def test_a_run_of_another_length_is_refused():
    layout = laid_out(TENSORS)
    with pytest.raises(NumericsError, match="first to third arrived as 71 bytes instead of 72"):
        next(unpack(layout, pack(layout, TENSORS.values(), CPU)[:-1]))


def test_nothing_is_copied_from_the_store_and_its_read_only_memory_is_accepted(recwarn):
    layout = laid_out(TENSORS)
    array = pack(layout, TENSORS.values(), CPU).numpy().copy()
    array.flags.writeable = False
    tensors = dict(unpack(layout, from_store(array)))
    assert tensors["second"].data_ptr() == array.ctypes.data + 32
    assert not recwarn.list
