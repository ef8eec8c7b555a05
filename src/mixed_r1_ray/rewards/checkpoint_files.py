"""Finds and maps a checkpoint's input-embedding matrix: local folders and hub names, one file or shards."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixed_r1_ray.errors import UserError

INDEX = "model.safetensors.index.json"
# What the families call the input embeddings. A tied model has no other copy, an untied one also an lm_head.
_SUFFIXES = ("embed_tokens.weight", "tok_embeddings.weight", "wte.weight", "word_embeddings.weight")
_DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """The files of a checkpoint folder, or of a model on the hub (`owner/name`), fetched when asked for."""

    path: str

    def find(self, name: str) -> Path | None:
        """The file of that name, None if there is none. Raises UserError if that cannot be told."""
        folder = Path(self.path)
        if folder.is_dir() or not re.fullmatch(r"[\w.-]+/[\w.-]+", self.path):
            return folder / name if (folder / name).is_file() else None
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            return Path(hf_hub_download(self.path, name))
        except LocalEntryNotFoundError as error:
            raise UserError(
                f"{self.path}: is no folder, and {name} could not be fetched from the hub: {error}"
            ) from None
        except EntryNotFoundError:
            return None
        except Exception as error:  # the hub's client raises its transport's errors
            raise UserError(
                f"{self.path}: is no folder, and {name} could not be fetched from the hub: {error}"
            ) from None

    def holding_tensors(self) -> dict[str, str]:
        """Tensor name → name of the safetensors file that holds it."""
        index = self.find(INDEX)
        if index is not None:
            return json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        folder = Path(self.path)
        names = (
            sorted(file.name for file in folder.glob("*.safetensors"))
            if folder.is_dir()
            else ["model.safetensors"]
        )
        found = {name: self.find(name) for name in names}
        return {
            tensor: name
            for name, file in found.items()
            if file is not None
            for tensor in _read_header(file)[0]
        }


def map_embeddings(files: CheckpointFiles) -> np.ndarray:
    """The input-embedding matrix, (V, H), mapped and not read; bfloat16 as uint16. Raises UserError."""
    holding = files.holding_tensors()
    if not holding:
        raise UserError(
            f"{files.path}: holds no *.safetensors file; open-ended answers are compared by its embeddings"
        )
    names = [name for name in holding if name.endswith(_SUFFIXES) and "vis" not in name]
    if len(names) != 1:
        found = ", ".join(names) or "none"
        raise UserError(f"{files.path}: expected one tensor named …{' or …'.join(_SUFFIXES)}; found {found}")
    (name,) = names
    file = files.find(holding[name])
    if file is None:
        raise UserError(f"{files.path}: {holding[name]} is missing, though {INDEX} says that it holds {name}")
    header, start = _read_header(file)
    entry = header.get(name, {"dtype": "nothing", "shape": []})
    if entry["dtype"] not in _DTYPES or len(entry["shape"]) != 2:
        raise UserError(
            f"{file}: {name} is {entry['dtype']} {entry['shape']}; expected a matrix of BF16, F16 or F32"
        )
    offset = start + entry["data_offsets"][0]
    try:
        return np.memmap(
            file, dtype=_DTYPES[entry["dtype"]], mode="r", offset=offset, shape=tuple(entry["shape"])
        )
    except ValueError as error:
        raise UserError(f"{file}: is cut short: {error}") from None


def as_float32(rows: np.ndarray) -> np.ndarray:
    """Rows of a mapped matrix as numbers to reckon with."""
    if rows.dtype == np.uint16:  # bfloat16 is the upper half of float32
        return (rows.astype(np.uint32) << 16).view(np.float32)
    return rows.astype(np.float32)


def _read_header(file: Path) -> tuple[dict, int]:
    """The header of a safetensors file, and where its data start."""
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        try:
            if size > 100_000_000:
                raise ValueError("its header is too long")
            header = json.loads(stream.read(size))
        except ValueError as error:
            raise UserError(f"{file}: cannot be read as safetensors: {error}") from None
    header.pop("__metadata__", None)
    return header, 8 + size
