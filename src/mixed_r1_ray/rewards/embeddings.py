"""Token ids and unit embedding rows of texts: what BMAS compares by."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.rewards.checkpoint_files import CheckpointFiles, as_float32, map_embeddings


class EmbeddingTable:
    """Token ids of a text, and their embeddings scaled to length 1.

    matrix: (V, H), any float dtype. tokenizer: a `tokenizers.Tokenizer`. Rows in use are held, in float32.
    """

    def __init__(self, matrix: np.ndarray, tokenizer):
        self._name = "embedding table"
        self._open_matrix = lambda: np.asarray(matrix)
        self._open_tokenizer = lambda: tokenizer
        self._matrix = self._tokenizer = None

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> EmbeddingTable:
        """The table of a checkpoint folder or of a model on the hub; nothing is read before a text is scored.

        Raises UserError then, if tokenizer.json or the embedding matrix cannot be found or read.
        """
        table = cls.__new__(cls)
        files = CheckpointFiles(str(path))
        table._name = files.path
        table._open_matrix = lambda: map_embeddings(files)
        table._open_tokenizer = lambda: _load_tokenizer(files)
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
            self._punctuation[token] = bool(piece) and all(
                unicodedata.category(char)[0] == "P" for char in piece
            )
        return np.array([self._punctuation[token] for token in ids.tolist()], dtype=bool)

    def unit_rows(self, ids: np.ndarray) -> np.ndarray:
        """Unit rows of the ids, float32 (T, H). A row of zeros stays one."""
        self._load_matrix_once()
        if len(ids) and int(ids.max()) >= len(self._place):
            raise UserError(
                f"{self._name}: token id {int(ids.max())} has no row in an embedding of {len(self._place)}"
            )
        new = np.unique(ids[self._place[ids] < 0])
        if len(new):
            self._keep(new)
        return self._rows[self._place[ids]]

    @property
    def rows_held(self) -> int:
        """How many rows are in memory, 4 H bytes each."""
        return 0 if self._matrix is None else self._used

    def _keep(self, ids: np.ndarray) -> None:
        rows = as_float32(self._matrix[ids])
        if not np.isfinite(rows).all():
            raise UserError(f"{self._name}: embedding rows hold NaN or infinity (ids {ids[:5].tolist()}, …)")
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


def _load_tokenizer(files: CheckpointFiles):
    from tokenizers import Tokenizer

    file = files.find("tokenizer.json")
    if file is None:
        raise UserError(f"{files.path}: holds no tokenizer.json; save the processor beside the model")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises no narrower class
        raise UserError(f"{file}: cannot be read as a tokenizer: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
