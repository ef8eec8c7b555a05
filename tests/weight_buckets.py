"""Weights by name as buckets, and back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import ray
import torch

from mixed_r1_ray.sync.packed import from_store, lay_out, pack, unpack
from mixed_r1_ray.types import Bucket, Layout, WeightUpdate

CPU = torch.device("cpu")


def packed(weights: Mapping[str, torch.Tensor]) -> tuple[Layout, np.ndarray]:
    """One bucket."""
    layout = lay_out([(name, tensor.dtype, tensor.shape) for name, tensor in weights.items()])
    return layout, pack(layout, weights.values(), CPU).numpy()


def stored(weights: Mapping[str, torch.Tensor]) -> Bucket:
    """One bucket in the object store."""
    layout, content = packed(weights)
    return Bucket(layout, ray.put(content))


def contents(bucket: Bucket) -> dict[str, torch.Tensor]:
    """What lies in the object store."""
    return dict(unpack(bucket.layout, from_store(ray.get(bucket.content))))


def all_contents(update: WeightUpdate) -> dict[str, torch.Tensor]:
    """Every parameter of an update."""
    return {
        name: tensor for bucket in (*update.changing, *update.constant) for name, tensor in contents(bucket).items()
    }
