"""Stage 1: of records that ask the same of the same picture, one stays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from mixed_r1_ray.data.engine.hamming import expanded, near_pairs
from mixed_r1_ray.data.engine.looks import same_picture
from mixed_r1_ray.data.engine.settings import DuplicateSettings, PictureSettings
from mixed_r1_ray.data.engine.table import SignatureTable
from mixed_r1_ray.data.engine.texts import near_answers, near_questions
from mixed_r1_ray.data.engine.verdicts import Verdicts

CAPTION, GROUNDING = "open_ended", "iou"
COMPARED_PAIRS = 8192  # small copies of so many pairs are in memory at once: 20 MiB with their differences


def drop_duplicates(
    table: SignatureTable, verdicts: Verdicts, settings: DuplicateSettings, pictures: PictureSettings
) -> None:
    """Marks all but one record of each set of duplicates.

    Which one stays depends on the records alone, not on files or rows: that with the most pixels, then that whose
    id has the least hash (choice).
    """
    rank = preference(table)
    verdicts.drop(np.flatnonzero(~table.usable), "unusable")
    if settings.exact:
        _drop_exact(table, verdicts, rank)
    if settings.near:
        _drop_near(table, verdicts, rank, settings, pictures)
    _drop_repeated_ids(table, verdicts, rank)


def preference(table: SignatureTable) -> np.ndarray:
    """(N,): the place of each record in the order in which records are preferred, 0 the first."""
    numbers = table.numbers
    order = np.lexsort((numbers["content"], numbers["key"], -numbers["pixels"]))
    rank = np.empty(len(table), np.int64)
    rank[order] = np.arange(len(table))
    return rank


def _drop_exact(table: SignatureTable, verdicts: Verdicts, rank: np.ndarray) -> None:
    again, first = _repeated(table.numbers["prompt"], verdicts.alive(), rank)
    verdicts.drop(again, "exact duplicate", like=first)


def _drop_repeated_ids(table: SignatureTable, verdicts: Verdicts, rank: np.ndarray) -> None:
    """Everything later goes by ids; two different records with one cannot both stay."""
    again, first = _repeated(table.numbers["key"], verdicts.alive(), rank)
    verdicts.drop(again, "unusable", like=first)


def _repeated(values: np.ndarray, alive: np.ndarray, rank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the records `alive`, those whose value a preferred one has too, and that one."""
    order = alive[np.lexsort((rank[alive], values[alive]))]
    new = np.concatenate([[True], values[order[1:]] != values[order[:-1]]])[: len(order)]
    leader = order[new][np.cumsum(new) - 1]
    return order[~new], leader[~new]


def _drop_near(
    table: SignatureTable,
    verdicts: Verdicts,
    rank: np.ndarray,
    settings: DuplicateSettings,
    pictures: PictureSettings,
) -> None:
    neighbours: dict[int, list[int]] = defaultdict(list)
    for i, j in _near_records(table, verdicts.alive(), settings, pictures):
        worse, better = (i, j) if rank[i] > rank[j] else (j, i)
        neighbours[worse].append(better)
    # In order of preference, so that what a record is dropped for is itself kept: likeness is no chain.
    for record in sorted(neighbours, key=rank.__getitem__):
        kept = [other for other in neighbours[record] if verdicts.stage[other] == 0]
        if kept:
            verdicts.drop(np.array([record]), "near duplicate", like=min(kept, key=rank.__getitem__))


def _near_records(
    table: SignatureTable, alive: np.ndarray, settings: DuplicateSettings, pictures: PictureSettings
) -> Iterator[tuple[int, int]]:
    """Pairs of records that are near, each once."""
    pictured = alive[table.num_pictures()[alive] > 0]
    blocks = [np.empty((0, 2), np.int64), *_candidates(table, pictured, settings, pictures)]
    candidates = np.concatenate(blocks)
    texts = dict(table.texts(np.unique(candidates)))
    captions = table.kinds.index(CAPTION) if CAPTION in table.kinds and settings.captions_by_picture else -1
    for i, j in candidates.tolist():
        if not _same_further_pictures(table, i, j, pictures):
            continue
        mine, theirs = texts[i], texts[j]
        if table.kind[i] == captions or (
            near_questions(mine["question"], theirs["question"], settings.word_similarity)
            and near_answers(mine["answer"], theirs["answer"])
        ):
            yield i, j


def _candidates(
    table: SignatureTable, records: np.ndarray, settings: DuplicateSettings, pictures: PictureSettings
) -> Iterator[np.ndarray]:
    """Blocks (n, 2) of records with near first pictures whose numbers (type, words, answer) do not tell them apart."""
    first = table.first[records]
    _, shown, picture = np.unique(table.digest[first], return_index=True, return_inverse=True)
    same, every = _Join(picture, _comparable(table, records, settings, resized=False)), np.arange(len(shown))
    for i, j in same.pairs(every, every):
        yield np.column_stack([records[i], records[j]])[i < j]
    resized = _Join(picture, _comparable(table, records, settings, resized=True))
    for p, q in near_pictures(table, first[shown], table, first[shown], pictures):
        for i, j in resized.pairs(p[p < q], q[p < q]):
            yield np.column_stack([records[i], records[j]])


class _Join:
    """Finds records by picture and key. picture: int64 (n,); keys: (n,)."""

    def __init__(self, picture: np.ndarray, keys: np.ndarray):
        names, self.key = np.unique(keys, return_inverse=True)
        self.width = len(names)
        cells = picture * self.width + self.key
        self.order = np.argsort(cells, kind="stable")
        self.cells = cells[self.order]

    def pairs(self, p: np.ndarray, q: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Blocks of places (i, j) with equal keys, i of picture p[n] and j of picture q[n], for every n."""
        begins = np.searchsorted(self.cells, np.stack([p, p + 1]) * self.width)
        for n, place in expanded(*begins):
            i = self.order[place]
            wanted = q[n] * self.width + self.key[i]
            ends = (np.searchsorted(self.cells, wanted, side) for side in ("left", "right"))
            for m, other in expanded(*ends):
                yield i[m], self.order[other]


def _comparable(
    table: SignatureTable, records: np.ndarray, settings: DuplicateSettings, resized: bool
) -> np.ndarray:
    """(n,) uint64 of type, words of the question and answer: records can only be near where these are equal.

    resized: their pictures may have different sizes, so boxes are compared later, not here.
    """
    kind = table.kind[records].astype(np.uint64)
    words = table.numbers["words"][records].astype(np.uint64)
    answered = table.numbers["answered"][records].copy()
    if resized and GROUNDING in table.kinds:
        answered[kind == table.kinds.index(GROUNDING)] = 0
    if settings.captions_by_picture and CAPTION in table.kinds:
        captions = kind == table.kinds.index(CAPTION)
        answered[captions] = words[captions] = 0
    return (answered & ~np.uint64(0xFFFFFF)) | (kind << np.uint64(16)) | (words & np.uint64(0xFFFF))


def near_pictures(
    left: SignatureTable,
    mine: np.ndarray,
    right: SignatureTable,
    theirs: np.ndarray,
    settings: PictureSettings,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of places (i, j) where picture mine[i] of `left` and theirs[j] of `right` show the same."""
    for block in near_pairs(left.phash[mine], right.phash[theirs], settings.distance):
        for start in range(0, len(block[0]), COMPARED_PAIRS):
            i, j = (side[start : start + COMPARED_PAIRS] for side in block)
            same = same_picture(left.copies[mine[i]], right.copies[theirs[j]], settings.pixel_difference)
            if same.any():
                yield i[same], j[same]


def _same_further_pictures(table: SignatureTable, i: int, j: int, settings: PictureSettings) -> bool:
    """Whether the second pictures, the third, … of two records show the same; their first ones do."""
    mine, theirs = (np.arange(table.first[one] + 1, table.first[one + 1]) for one in (i, j))
    if len(mine) != len(theirs):
        return False
    near = np.bitwise_count(table.phash[mine] ^ table.phash[theirs]) <= settings.distance
    return bool(
        near.all() and same_picture(table.copies[mine], table.copies[theirs], settings.pixel_difference).all()
    )
