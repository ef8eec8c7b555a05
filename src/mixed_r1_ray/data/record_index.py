"""What choosing needs of every record: a few numbers each, read from the small columns alone."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from mixed_r1_ray.data.quotas import Stratum
from mixed_r1_ray.data.recipe import Recipe
from mixed_r1_ray.data.record_files import InputFile, read_batches
from mixed_r1_ray.data.schema import pass_rate
from mixed_r1_ray.errors import UserError

KEY_BYTES = 16
INDEX_BATCH_ROWS = 16384
NUM_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class RecordIndex:
    """The candidates of a mixture, in the order of files and rows; N of them.

    `key` is a hash of seed and id: who has the least is drawn first. `left_out` counts other rows by reason.
    """

    key: np.ndarray  # uint64 (N, 2)
    stratum: np.ndarray  # int32 (N,), a place in `strata`
    file: np.ndarray  # int32 (N,), a place in the list of files
    row: np.ndarray  # int64 (N,)
    strata: tuple[Stratum, ...]
    left_out: Counter[str] = field(default_factory=Counter)
    examples: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.row)

    def available(self) -> dict[Stratum, int]:
        """Candidates of each stratum."""
        counts = np.bincount(self.stratum, minlength=len(self.strata)).tolist()
        return dict(zip(self.strata, counts, strict=True))

    def draw(self, numbers: dict[Stratum, int]) -> np.ndarray:
        """Rising indices of the records with the least keys of each stratum, as many as `numbers` says."""
        order = np.lexsort((self.key[:, 1], self.key[:, 0], self.stratum))
        starts = np.searchsorted(self.stratum[order], np.arange(len(self.strata)))
        drawn = [
            order[start : start + numbers.get(name, 0)]
            for start, name in zip(starts, self.strata, strict=True)
        ]
        return np.sort(np.concatenate(drawn))


def build_index(files: Sequence[InputFile], recipe: Recipe) -> RecordIndex:
    """Reads id, source, reward type (and `meta`, where a type has a band) of every row."""
    scan = _Scan(recipe)
    for number, file in enumerate(files):
        scan.add_file(number, file)
    return scan.index([file.path.name for file in files])


class _Scan:
    """The index in the making: byte strings and arrays, for objects a record would not stay small."""

    def __init__(self, recipe: Recipe):
        self.strata = tuple(stratum for stratum, _ in recipe.strata())
        self.code = {stratum: number for number, stratum in enumerate(self.strata)}
        self.bands = {kind: band.pass_rate for kind, band in recipe.types.items() if band.pass_rate}
        self.keep_unrated = recipe.without_pass_rate == "keep"
        self.salt = hashlib.sha256(str(recipe.seed).encode()).digest()
        self.left_out: Counter[str] = Counter()
        self.examples: list[str] = []
        self.keys = bytearray()
        self.places: list[np.ndarray] = []  # (3, n): stratum, file, row

    def add_file(self, number: int, file: InputFile) -> None:
        columns = ["id", "source", "reward_type", *(["meta"] if self.bands else [])]
        for first, batch in read_batches(file, columns, batch_rows=INDEX_BATCH_ROWS):
            kept = []
            for offset, values in enumerate(_rows(batch, columns)):
                reason = self._reason_to_leave_out(*values)
                if reason is None:
                    self.keys += hashlib.blake2b(
                        values[0].encode(), digest_size=KEY_BYTES, key=self.salt
                    ).digest()
                    kept.append((self.code[values[2], values[1]], number, first + offset))
                else:
                    self._leave_out(reason, file.path.name, first + offset)
            self.places.append(np.array(kept, dtype=np.int64).reshape(-1, 3).T)

    def _reason_to_leave_out(
        self, record_id: str | None, source: str | None, reward_type: str | None, meta: str | None = None
    ) -> str | None:
        if not record_id or not source or not reward_type:
            return "without id, source or reward type"
        if (reward_type, source) not in self.code:
            return f"{reward_type} of {source} is not in the recipe"
        if reward_type not in self.bands:
            return None
        rate = pass_rate(meta)
        if rate is None:
            return None if self.keep_unrated else f"{source}: no pass rate"
        least, most = self.bands[reward_type]
        return None if least <= rate <= most else f"{source}: pass rate outside {least:g} to {most:g}"

    def _leave_out(self, reason: str, file: str, row: int) -> None:
        if not self.left_out[reason] and len(self.examples) < NUM_EXAMPLES:
            self.examples.append(f"{file}, row {row}: {reason}")
        self.left_out[reason] += 1

    def index(self, names: Sequence[str]) -> RecordIndex:
        key = np.frombuffer(self.keys, dtype=">u8").astype(np.uint64).reshape(-1, 2)
        places = np.concatenate(self.places, axis=1) if self.places else np.empty((3, 0), np.int64)
        order = np.lexsort((key[:, 1], key[:, 0]))
        same = np.all(key[order[1:]] == key[order[:-1]], axis=1)
        again = order[1:][same]
        for place in again[:NUM_EXAMPLES]:
            self.examples.append(
                f"{names[places[1, place]]}, row {places[2, place]}: id stands for an earlier row too"
            )
        if len(again):
            self.left_out["id stands for an earlier row too"] += len(again)
        first = np.ones(len(key), dtype=bool)
        first[again] = False
        stratum, file = (values[first].astype(np.int32) for values in places[:2])
        return RecordIndex(
            key[first], stratum, file, places[2][first], self.strata, self.left_out, tuple(self.examples)
        )


def _rows(batch: pa.RecordBatch, columns: Sequence[str]):
    """Tuples of a batch's values in the order of `columns`; what the file lacks is null."""
    missing = [None] * batch.num_rows
    try:
        lists = [
            batch.column(name).cast(pa.string()).to_pylist() if name in batch.schema.names else missing
            for name in columns
        ]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(
            f"a column among {', '.join(columns)} is no text ({error}); `check` names the file"
        ) from error
    return zip(*lists, strict=True)
