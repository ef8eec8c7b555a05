"""The rows of a checkpoint's input-embedding matrix, read from its safetensors files as they are needed."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np

from mixed_r1_ray.errors import UserError

# Where the families keep the input embeddings; a tied model has no other copy, an untied one a separate lm_head.
_SUFFIXES = ("embed_tokens.weight", "tok_embeddings.weight", "wte.weight", "word_embeddings.weight")
_DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


class EmbeddingTable:
    """Token ids of a text, and their embeddings scaled to length 1.

    matrix: (V, H), any float dtype. tokenizer: a `tokenizers.Tokenizer`. Only rows in use are held, in float32.
    """

    def __init__(self, matrix: np.ndarray, tokenizer):
        self._path: Path | None = None
        self._open_matrix = lambda: np.asarray(matrix)
        self._open_tokenizer = lambda: tokenizer
        self._matrix = self._tokenizer = None

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> EmbeddingTable:
        """The table of the checkpoint folder at `path`; nothing is read before the first text is scored.

        Raises UserError then, if tokenizer.json or the embedding matrix cannot be found or read.
        """
        table = cls.__new__(cls)
        table._path = Path(path)
        table._open_matrix = lambda: _map_matrix(Path(path))
        table._open_tokenizer = lambda: _load_tokenizer(Path(path))
        table._matrix = table._tokenizer = None
        return table

    def encode(self, text: str) -> np.ndarray:
        """Token ids of the text, int64 (T,), special tokens dropped."""
        self._load_tokenizer_once()
        readable = text.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair is no text
        ids = np.array(self._tokenizer.encode(readable, add_special_tokens=False).ids, dtype=np.int64)
        return ids[~np.isin(ids, self._special)] if len(self._special) else ids

    def is_punctuation(self, ids: np.ndarray) -> np.ndarray:
        """Which ids stand for punctuation alone, bool (T,)."""
        self._load_tokenizer_once()
        for token in set(ids.tolist()) - self._punctuation.keys():
            piece = self._tokenizer.decode([token]).strip()
            self._punctuation[token] = bool(piece) and all(unicodedata.category(char)[0] == "P" for char in piece)
        return np.array([self._punctuation[token] for token in ids.tolist()], dtype=bool)

    def unit_rows(self, ids: np.ndarray) -> np.ndarray:
        """Unit rows of the ids, float32 (T, H). A row of zeros stays one."""
        self._load_matrix_once()
        if len(ids) and int(ids.max()) >= len(self._place):
            raise UserError(f"{self._name()}: token id {int(ids.max())} has no row in an embedding of {len(self._place)}")
        new = np.unique(ids[self._place[ids] < 0])
        if len(new):
            self._keep(new)
        return self._rows[self._place[ids]]

    def _keep(self, ids: np.ndarray) -> None:
        rows = _as_float32(self._matrix[ids])
        if not np.isfinite(rows).all():
            raise UserError(f"{self._name()}: embedding rows hold NaN or infinity (ids {ids[:5].tolist()}, …)")
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        needed = self._used + len(ids)
        if needed > len(self._rows):
            grown = np.empty((max(needed, 2 * len(self._rows)), rows.shape[1]), dtype=np.float32)
            grown[: self._used] = self._rows[: self._used]
            self._rows = grown
        self._rows[self._used : needed] = rows / np.where(lengths > 0, lengths, 1.0)
        self._place[ids] = np.arange(self._used, needed)
        self._used = needed

    def _load_tokenizer_once(self) -> None:
        if self._tokenizer is not None:
            return
        self._tokenizer = self._open_tokenizer()
        added = self._tokenizer.get_added_tokens_decoder()
        self._special = np.array([token for token, info in added.items() if info.special], dtype=np.int64)
        self._punctuation: dict[int, bool] = {}

    def _load_matrix_once(self) -> None:
        if self._matrix is not None:
            return
        self._matrix = self._open_matrix()
        vocabulary, width = self._matrix.shape
        self._place = np.full(vocabulary, -1, dtype=np.int64)  # id → its row in _rows, -1 while not read
        self._rows = np.empty((min(vocabulary, 1024), width), dtype=np.float32)
        self._used = 0

    def _name(self) -> str:
        return "embedding table" if self._path is None else str(self._path)


def _load_tokenizer(path: Path):
    from tokenizers import Tokenizer

    file = path / "tokenizer.json"
    if not file.is_file():
        raise UserError(f"{file}: not found; open-ended answers are tokenised with it (save the processor beside the model)")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises no narrower class
        raise UserError(f"{file}: cannot be read as a tokenizer: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _map_matrix(path: Path) -> np.ndarray:
    """The input-embedding matrix, (V, H), mapped and not read; bfloat16 as uint16."""
    file, name = _find_matrix(path)
    header, start = _read_header(file)
    entry = header[name]
    if entry["dtype"] not in _DTYPES or len(entry["shape"]) != 2:
        raise UserError(f"{file}: {name} is {entry['dtype']} {entry['shape']}; expected a matrix of BF16, F16 or F32")
    offset = start + entry["data_offsets"][0]
    return np.memmap(file, dtype=_DTYPES[entry["dtype"]], mode="r", offset=offset, shape=tuple(entry["shape"]))


def _find_matrix(path: Path) -> tuple[Path, str]:
    """The file that holds the input embeddings, and their name in it."""
    index = path / "model.safetensors.index.json"
    if index.is_file():
        files = {name: path / file for name, file in json.loads(index.read_text())["weight_map"].items()}
    else:
        files = {name: file for file in sorted(path.glob("*.safetensors")) for name in _read_header(file)[0]}
    if not files:
        raise UserError(f"{path}: holds no *.safetensors file; open-ended answers are compared by the model's embeddings")
    names = [name for name in files if name.endswith(_SUFFIXES) and "vis" not in name]
    if len(names) != 1:
        found = f"{len(names)} of them ({', '.join(names)})" if names else "none"
        raise UserError(f"{path}: one matrix named …{_SUFFIXES[0]} (or {', '.join(_SUFFIXES[1:])}) was expected, found {found}")
    if not files[names[0]].is_file():
        raise UserError(f"{files[names[0]]}: not found, though {index.name} says that it holds {names[0]}")
    return files[names[0]], names[0]


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


def _as_float32(rows: np.ndarray) -> np.ndarray:
    if rows.dtype == np.uint16:  # bfloat16 is the upper half of float32
        return (rows.astype(np.uint32) << 16).view(np.float32)
    return rows.astype(np.float32)
