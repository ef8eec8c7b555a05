"""Checkpoints that are whole or absent: written under a temporary name, hashed, renamed, verified before use.

Several processes may write one: each seals its files and leaves a note of them (`note_part`); one of them waits for all
notes and commits (`gather_parts`, `commit`).

checkpoints/step_000100/   what the writers put there, and manifest.json: state, size and sha256 of each file
            latest         link to the newest one committed
            .step_…        being written, or being deleted; never read
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.runtime import atomic

MANIFEST = "manifest.json"
POLL_S = 0.05
Files = dict[str, dict[str, Any]]  # path below the checkpoint -> its size (bytes) and sha256
_NAME = re.compile(r"step_(\d{6,})")


class Unusable(UserError):
    """A checkpoint that no run can go on from: not whole, or its numbers are no use."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose files were found to be what its manifest says."""

    path: Path
    step: int
    state: dict[str, Any]


def begin(root: Path, step: int) -> Path:
    """Makes the temporary folder of a checkpoint; any number of processes may then write files into it.

    Unfinished folders that an interrupted run left are removed, so begin only one checkpoint at a time.
    """
    root.mkdir(parents=True, exist_ok=True)
    for leftover in root.glob(".step_*"):
        shutil.rmtree(leftover)
    folder = root / f".step_{step:06d}.partial"
    folder.mkdir()
    return folder


def seal(folder: Path, path: Path) -> Files:
    """Waits until a written file is on the disk, and returns its entry in the manifest."""
    atomic.flush_to_disk(path)
    return {path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}}


def note_part(folder: Path, part: int, files: Files) -> None:
    """Tells the process that commits that all files of part number `part` are written."""
    atomic.write_text(folder / _part_name(part), json.dumps(files))


def gather_parts(folder: Path, num_parts: int, deadline_s: float) -> Files:
    """Waits for the notes of all parts, removes them and returns their entries together.

    Raises UserError naming the parts that did not come in time.
    """
    end, files = time.monotonic() + deadline_s, {}
    notes = [folder / _part_name(part) for part in range(num_parts)]
    while missing := [part for part, note in enumerate(notes) if not note.is_file()]:
        if time.monotonic() > end:
            named = ", ".join(map(str, missing))
            raise UserError(f"checkpoint {folder}: nothing from learner {named} of {num_parts} after {deadline_s:g} s")
        time.sleep(POLL_S)
    for note in notes:
        files |= json.loads(note.read_text(encoding="utf-8"))
        note.unlink()
    return files


def commit(
    folder: Path, state: dict[str, Any], files: Files, keep: int | None = None, spare: int | None = None
) -> Checkpoint:
    """Turns the folder of `begin`, with all its sealed `files`, into root/step_<step>, and points `latest` at it.

    `state` must be JSON: floats come back exactly, NaN is refused. An older checkpoint of the same step is
    replaced. With `keep`, only the newest `keep` up to this step stay, and that of step `spare`.
    """
    root, step = folder.parent, int(_NAME.search(folder.name).group(1))
    state = json.loads(json.dumps(state, allow_nan=False))  # as it will be read back: keys become strings
    content = {"format": 1, "step": step, "files": dict(sorted(files.items())), "state": state}
    (folder / MANIFEST).write_text(
        json.dumps(content | {"sha256": _digest(content)}, indent=1, allow_nan=False), encoding="utf-8"
    )
    for path in (folder / MANIFEST, *(sub for sub in folder.rglob("*") if sub.is_dir()), folder):
        atomic.flush_to_disk(path)
    final = folder_of(root, step)
    replaced = _put_aside(final) if final.exists() else None
    os.replace(folder, final)
    if replaced is not None:
        shutil.rmtree(replaced)
    _point_latest(root, final.name)
    atomic.flush_to_disk(root)
    if keep is not None:
        older = [path for number, path in _steps(root) if number <= step][max(keep, 1) :]
        for path in older:
            if spare is None or path != folder_of(root, spare):
                shutil.rmtree(_put_aside(path))
    return Checkpoint(final, step, state)


def newest_valid(
    root: Path, use: Callable[[Checkpoint], None] = lambda checkpoint: None
) -> tuple[Checkpoint | None, list[str]]:
    """Returns the newest checkpoint whose every file has the size and hash of its manifest, or None.

    use: called with it; where it raises Unusable, an older one is tried. The second value names the fault of each newer
    one that was passed over. Nothing is deleted.
    """
    return first_valid([path for _, path in _steps(root)], use)


def first_valid(
    paths: Iterable[Path], use: Callable[[Checkpoint], None]
) -> tuple[Checkpoint | None, list[str]]:
    """The same, in an order of one's own."""
    faults = []
    for path in paths:
        try:
            checkpoint = verify(path)
            use(checkpoint)
            return checkpoint, faults
        except Unusable as error:
            faults.append(str(error))
    return None, faults


def steps_of(root: Path) -> list[int]:
    """Steps that have a checkpoint, newest first; whether it is whole, `verify` says."""
    return [step for step, _ in _steps(root)]


def folder_of(root: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return root / f"step_{step:06d}"


def verify(path: Path) -> Checkpoint:
    """Reads one checkpoint folder and checks every file. Raises Unusable naming the first fault."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        claimed = manifest.pop("sha256")
        step, files, state = manifest["step"], manifest["files"], manifest["state"]
    except FileNotFoundError:
        raise Unusable(f"checkpoint {path} has no {MANIFEST}: it was not written to its end") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unusable(f"checkpoint {path}: {MANIFEST} cannot be read ({error!r})") from error
    if _digest(manifest) != claimed:
        raise Unusable(f"checkpoint {path}: {MANIFEST} was changed after it was written")
    for name, expected in files.items():
        file = path / name
        if not file.is_file():
            raise Unusable(f"checkpoint {path}: file {name} is missing")
        size = file.stat().st_size
        if size != expected["bytes"]:
            raise Unusable(f"checkpoint {path}: file {name} has {size} bytes instead of {expected['bytes']}")
        if _sha256(file) != expected["sha256"]:
            raise Unusable(f"checkpoint {path}: the content of file {name} is damaged (sha256 differs)")
    return Checkpoint(path, step, state)


def _steps(root: Path) -> list[tuple[int, Path]]:
    """Folders step_<n>, newest first."""
    found = [
        (int(match.group(1)), path)
        for path in root.glob("step_*")
        if (match := _NAME.fullmatch(path.name)) and path.is_dir()
    ]
    return sorted(found, reverse=True)


def _point_latest(root: Path, name: str) -> None:
    temporary = root / ".latest.tmp"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(name)
    os.replace(temporary, root / "latest")


def _put_aside(path: Path) -> Path:
    """Renames a folder that is to be deleted, so that no half of it is ever under a name that is read."""
    doomed = path.with_name(f".{path.name}.deleted")
    os.replace(path, doomed)
    return doomed


def _part_name(part: int) -> str:
    return f".part-{part:05d}.json"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()
