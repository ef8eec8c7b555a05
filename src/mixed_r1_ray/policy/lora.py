"""LoRA on the linear layers of the language model (peft): what is trained, switched off, and merged for the engine.

Hu et al. 2021 (2106.09685): a layer computes W x + (alpha / rank) B A x, A drawn at random, B zero at the start.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

NAME = "default"  # peft's, of the only adapter
BASE, LORA = ".base_layer.", ".lora_"  # in the parameter names of a layer that has one


def add_lora(model: nn.Module, rank: int, alpha: float, seed: int) -> None:
    """Puts an adapter on every linear layer of `model`'s language model and freezes all else.

    The same seed draws the same adapters on every rank. The output head is left as it is.
    """
    from peft import LoraConfig, inject_adapter_in_model

    language = model.model.language_model
    targets = [name for name, module in language.named_modules() if isinstance(module, nn.Linear)]
    dtype = next(language.parameters()).dtype
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets), language)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(LORA in name)
        if LORA in name:
            parameter.data = parameter.data.to(dtype)


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """The model that training began with, for the length of the block. No gradient may be taken inside."""
    from peft.tuners.lora import LoraLayer

    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


@dataclass(frozen=True)
class MergedParameter:
    """A parameter as a checkpoint has it, and what it is computed from: its weight, and A, B where it is adapted.

    changes: whether training changes its layer, an adapted one's bias included: engines fill a layer as a whole.
    """

    name: str
    sources: tuple[nn.Parameter, ...]
    changes: bool
    scaling: float = 0.0

    def value(self) -> torch.Tensor:
        """W itself, to be read only, or W + scaling B A. Sources must be whole."""
        weight, *adapter = (source.detach() for source in self.sources)
        if not adapter:
            return weight
        down, up = adapter
        return (weight.float() + self.scaling * (up.float() @ down.float())).to(weight.dtype)


def merged_parameters(model: nn.Module) -> list[MergedParameter]:
    """All parameters under the checkpoint's names, whether `model` has adapters or not."""
    merged = []
    for name, parameter in model.named_parameters():
        if LORA in name:
            continue
        adapted, sources, scaling = BASE in name, (parameter,), 0.0
        layer = model.get_submodule(name.partition(BASE)[0] if adapted else name.rpartition(".")[0])
        changes = any(one.requires_grad for one in layer.parameters(recurse=adapted))
        if name.endswith(f"{BASE}weight"):
            sources += (layer.lora_A[NAME].weight, layer.lora_B[NAME].weight)
            scaling = layer.scaling[NAME]
        merged.append(MergedParameter(name.replace(BASE, "."), sources, changes, scaling))
    return merged
