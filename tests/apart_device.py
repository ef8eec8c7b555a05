"""A device that computes and that the CPU's tensors cannot reach, on any machine.

Its tensors say that they are torch's `meta` device and hold a CPU tensor, on which every operation is done. As on a GPU
an operation must find all its tensors there (the indices of x[index] may come from the CPU, and single numbers that are
added, multiplied, ...), NumPy cannot read them, and only a copy goes from one side to the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

APART = torch.device("meta")
aten = torch.ops.aten
BOTH_SIDES = {aten._to_copy.default, aten.copy_.default}  # copies, and what takes an index from either side
BOTH_SIDES |= {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}


class ApartTensor(torch.Tensor):
    """One over there; `inside` holds its values."""

    @staticmethod
    def __new__(cls, inside: torch.Tensor):
        layout = inside.shape, inside.stride(), inside.storage_offset()
        with torch.inference_mode(False):  # a view of an ordinary tensor is one, under inference_mode too
            return torch.Tensor._make_wrapper_subclass(cls, *layout, dtype=inside.dtype, device=APART)

    def __init__(self, inside: torch.Tensor):
        self.inside = inside

    def __repr__(self) -> str:
        return f"ApartTensor({self.inside})"

    def tolist(self) -> list:
        return self.cpu().tolist()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.inside.untyped_storage()

    def set_(self, storage: torch.UntypedStorage) -> ApartTensor:
        return ApartTensor(self.inside.set_(storage))  # another one: this one's shape stays

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise AssertionError(f"{function} outside of apart_device()")


class _Apart(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        with self:  # under inference_mode what is made of other operations arrives whole
            if (result := function.decompose(*args, **kwargs)) is not NotImplemented:
                return result
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        there = [each for each in tensors if isinstance(each, ApartTensor)]
        if function is aten._fused_sdp_choice.default and there:
            return int(torch.nn.attention.SDPBackend.MATH)
        if there and function not in BOTH_SIDES:
            numbers = torch.Tag.pointwise in function.tags
            strangers = [each for each in tensors if not isinstance(each, ApartTensor) and (each.dim() or not numbers)]
            assert not strangers, f"{function} finds tensors on both sides: {[tuple(each.shape) for each in tensors]}"
        device = kwargs.get("device")
        goes_there = bool(there) if device is None else torch.device(device) == APART
        if function is aten.copy_.default:
            goes_there = isinstance(args[0], ApartTensor)
        if device is not None:
            kwargs["device"] = torch.device("cpu")
        known = {id(each.inside): each for each in there}  # what was written in place stays the tensor that it was
        result = function(*tree_map(_inside, args), **tree_map(_inside, kwargs))
        if not goes_there:
            return result

        def outside(value):
            if not isinstance(value, torch.Tensor):
                return value
            return known[id(value)] if id(value) in known else ApartTensor(value)

        return tree_map(outside, result)


class _Literals(TorchFunctionMode):
    """torch.tensor on the device: torch itself drops the values of a `meta` one before anybody sees them."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function is torch.tensor and kwargs.get("device") is not None:
            return torch.tensor(*args, **kwargs | {"device": "cpu"}).to(kwargs["device"])
        return function(*args, **kwargs)


def _inside(value):
    return value.inside if isinstance(value, ApartTensor) else value


@contextmanager
def apart_device() -> Iterator[torch.device]:
    """The device, for the length of the block."""
    with _Literals(), _Apart():
        yield APART


def move(module: torch.nn.Module) -> torch.nn.Module:
    """`module`, its parameters and buffers on the device; those that it shares stay shared."""
    moved: dict[int, torch.nn.Parameter] = {}
    for each in module.modules():
        for name, parameter in each._parameters.items():
            if parameter is not None and id(parameter) not in moved:
                there = torch.nn.Parameter(ApartTensor(parameter.detach().clone()), parameter.requires_grad)
                moved[id(parameter)] = moved[id(there)] = there
            each._parameters[name] = parameter if parameter is None else moved[id(parameter)]
        for name, buffer in each._buffers.items():
            if buffer is not None and not isinstance(buffer, ApartTensor):
                each._buffers[name] = ApartTensor(buffer.clone())
    return module
