"""Checkpoints as one process writes them, for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mixed_r1_ray.runtime.checkpoints import Checkpoint, begin, commit, seal


def write_checkpoint(
    root: Path, step: int, writer: Callable[[Path], None], state: dict | None = None, **keeping: int | None
) -> Checkpoint:
    """Lets `writer` fill the folder of a checkpoint and commits it."""
    folder = begin(root, step)
    writer(folder)
    return commit(folder, state or {}, sealed(folder), **keeping)


def sealed(folder: Path) -> dict:
    """The manifest's entries of all files in `folder`."""
    files: dict = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        files |= seal(folder, path)
    return files
