"""Where a policy computes, and how what it computes on gets there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import TypeVar

import torch

from mixed_r1_ray.errors import UserError

Content = TypeVar("Content")


def worker_device(role: str, gpus: int) -> torch.device:
    """The GPU of a worker of `role`, or the CPU where its `gpus_per_worker` is 0.

    A worker without one of its own may still see its node's. Raises UserError where it should see one and does not.
    """
    if not gpus:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        raise UserError(
            f"{role}.gpus_per_worker={gpus}, but torch {torch.__version__} finds no GPU in this worker "
            f"(CUDA_VISIBLE_DEVICES={visible}); install a CUDA build of torch and its driver, or set it to 0"
        )
    return torch.device("cuda", 0)  # Ray shows a worker its own GPU alone


def free_cached_memory() -> None:
    """Gives back what torch keeps of a GPU for later, so that other processes can have it."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def to_device(content: Content, device: torch.device) -> Content:
    """`content` with all its tensors on `device`: a tensor, or a dataclass, tuple or mapping of such; all else stays.

    To a GPU they go from pinned memory, and nobody waits for the copies.
    """
    if isinstance(content, torch.Tensor):
        if device.type == "cuda" and content.device.type == "cpu":
            return content.pin_memory().to(device, non_blocking=True)
        return content.to(device)
    if is_dataclass(content):
        return replace(content, **{f.name: to_device(getattr(content, f.name), device) for f in fields(content)})
    if isinstance(content, tuple):
        return tuple(to_device(part, device) for part in content)
    if isinstance(content, Mapping):
        return {name: to_device(part, device) for name, part in content.items()}
    return content
