"""Fixtures that several test modules share: tiny untrained checkpoints of both model families."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; tiny models gain nothing from more

from pathlib import Path

import mixed_r1_ray  # noqa: F401  # and what it sets for OpenMP: test modules may import torch first
import pytest
from hypothesis import settings

settings.register_profile("project", deadline=None)  # a busy machine is not a failure
settings.load_profile("project")

FAMILIES = ("internvl", "qwen2_5_vl")
TEXTS = (
    "Where is the red circle? Give its box.",
    "What is the value of the blue bar?",
    "a red circle and a square",
)


@pytest.fixture(scope="session")
def tiny_checkpoints(tmp_path_factory) -> dict[str, str]:
    """Folder of an untrained checkpoint, by family."""
    from mixed_r1_ray.vlm.tiny import save_tiny

    folders: dict[str, Path] = {family: tmp_path_factory.mktemp(family) for family in FAMILIES}
    for family, folder in folders.items():
        save_tiny(folder, family, TEXTS, seed=1)
    return {family: str(folder) for family, folder in folders.items()}


@pytest.fixture(scope="session", params=FAMILIES)
def family(request) -> str:
    """Each model family in turn."""
    return request.param


@pytest.fixture(scope="session")
def checkpoint(family, tiny_checkpoints) -> str:
    """Folder of the family's untrained checkpoint."""
    return tiny_checkpoints[family]
