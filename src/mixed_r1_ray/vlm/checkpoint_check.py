"""Whether a run could load the model at a path: by its config.json and the headers of its weights, without a network."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.vlm.families import check_family

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")  # OWNER/NAME
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED = "pytorch_model*.bin"  # transformers reads them, too; their headers are not looked at


def check_checkpoint(path: str) -> str | None:
    """What else is to be known of the model at `path`: None, or a sentence where it is on the hub alone.

    Raises UserError where there is no such folder, its config.json is of no family that loads, or weights are missing
    or cut short.
    """
    folder = Path(path)
    if folder.is_dir():
        check_family(path, _read_json(path, folder / "config.json").get("model_type"))
        _check_weights(path, folder)
        return None
    if folder.exists():
        raise UserError(f"model.path={path}: is a file; give the folder of the checkpoint")
    if not HUB_NAME.fullmatch(path):
        raise UserError(f"model.path={path}: there is no such folder, and a name on the hub is OWNER/NAME")
    return _check_cached(path)


def _check_cached(name: str) -> str | None:
    """Of a hub name: what lies in the hub's cache here. What is missing of it, a run downloads."""
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(name, "config.json")
    if isinstance(file, str):
        check_family(name, _read_json(name, Path(file)).get("model_type"))
        return None
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise UserError(
            f"model.path={name}: no such folder, not in the hub's cache here, and HF_HUB_OFFLINE forbids a download"
        )
    return f"model.path={name} is no folder and not in the hub's cache here: a run would download it from the hub."


def _check_weights(path: str, folder: Path) -> None:
    if (folder / WEIGHTS).is_file():
        files = [WEIGHTS]
    elif (folder / INDEX).is_file():
        parts = _read_json(path, folder / INDEX).get("weight_map")
        files = sorted(set(parts.values())) if isinstance(parts, dict) else []
        if not files:
            raise UserError(f"model.path={path}: its {INDEX} names no files; copy the checkpoint again")
    elif any(folder.glob(PICKLED)):
        return
    else:
        raise UserError(f"model.path={path}: holds no weights (neither {WEIGHTS} nor {INDEX})")
    if missing := [name for name in files if not (folder / name).is_file()]:
        raise UserError(
            f"model.path={path}: {len(missing)} of {len(files)} files of its weights are missing: "
            f"{', '.join(missing[:3])}"
        )
    for name in files:
        _check_header(path, folder / name)


def _check_header(path: str, file: Path) -> None:
    """A safetensors header says how long its file is."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy"):
            return
    except (OSError, SafetensorError) as error:
        raise UserError(f"model.path={path}: {file.name} cannot be read ({error}); copy it again") from error


def _read_json(path: str, file: Path) -> dict:
    if not file.is_file():
        raise UserError(f"model.path={path}: the folder holds no {file.name}; is it a checkpoint?")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"model.path={path}: its {file.name} cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"model.path={path}: its {file.name} is no JSON object")
    return content
