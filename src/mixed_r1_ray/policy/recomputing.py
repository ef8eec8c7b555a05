"""Layers that keep their input alone for the backward pass and compute the rest anew there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def recompute_layers(model: PreTrainedModel) -> None:
    """Puts `model` in evaluation mode, but for its layers themselves: each is computed again in the backward pass.

    transformers recomputes where a layer's own `training` is true; dropout asks the modules inside it, so there is
    none. What enters the layers need not carry a gradient: else a frozen tower would be differentiated.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    model.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})  # nothing is drawn
    model.disable_input_require_grads()
    model.eval()
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True
