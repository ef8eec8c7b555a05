"""Loads a checkpoint as a PolicyModel."""

from __future__ import annotations

import torch

from mixed_r1_ray.config import ModelConfig
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.policy import group_attention
from mixed_r1_ray.policy.logprobs import PolicyModel
from mixed_r1_ray.policy.segment_attention import refuse_slow_kernels
from mixed_r1_ray.vlm.base import VLMAdapter
from mixed_r1_ray.vlm.families import load_adapter


def load_policy(config: ModelConfig, temperature: float, freeze: str = "none") -> PolicyModel:
    """The checkpoint at `config.path`, in `config.dtype`, with the parts named by `freeze` not trained.

    Raises UserError where its weights cannot be read or do not fill the whole model.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText

    adapter = load_adapter(config)
    refuse_slow_kernels()
    try:
        model, report = AutoModelForImageTextToText.from_pretrained(
            config.path,
            dtype=getattr(torch, config.dtype),
            attn_implementation=group_attention.register(),
            output_loading_info=True,
        )
    except (OSError, SafetensorError) as error:
        raise UserError(f"model.path={config.path}: its weights cannot be read ({error})") from error
    if missing := sorted(report["missing_keys"]):  # transformers fills them with noise, and only warns
        raise UserError(
            f"model.path={config.path}: the checkpoint lacks {len(missing)} of the model's parameters: "
            f"{', '.join(missing[:5])}"
        )
    group_attention.attend_in_segments(model)
    train_vision = freeze_parts(model, adapter, freeze)
    return PolicyModel(model, adapter, temperature, train_vision)


def freeze_parts(model: torch.nn.Module, adapter: VLMAdapter, freeze: str) -> bool:
    """Freezes `none`, `vision` or `vision+projector`; returns whether picture features need a gradient."""
    frozen = set() if freeze == "none" else set(freeze.split("+"))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(adapter.part_of(name) not in frozen)
    return not {"vision", "projector"} <= frozen
