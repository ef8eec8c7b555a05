"""Stage 1: of records that ask the same of the same picture, one stays."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from mixed_r1_ray.data.engine.hamming import near_pairs
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
    numbers = itertools.chain.from_iterable(_candidates(table, pictured, settings, pictures))
    candidates = np.fromiter(numbers, np.int64).reshape(-1, 2)
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
) -> Iterator[tuple[int, int]]:
    """Pairs of records with near first pictures whose numbers (type, words, answer) do not tell them apart."""
    first = table.first[records]
    digests, shown, picture = np.unique(table.digest[first], return_index=True, return_inverse=True)
    keys = _comparable(table, records, settings, resized=False)
    order = np.lexsort((records, keys, picture))
    yield from _pairs_of_one_picture(records[order], keys[order], picture[order])
    keys = _comparable(table, records, settings, resized=True)
    order = np.lexsort((records, keys, picture))
    records, keys, picture, shown = records[order], keys[order], picture[order], first[shown]
    bounds = np.searchsorted(picture, np.arange(len(digests) + 1))
    for p, q in near_pictures(table, shown, table, shown, pictures):
        for p, q in zip(*(side[p < q].tolist() for side in (p, q)), strict=True):
            yield from _pairs_of_two(records, keys, *bounds[[p, p + 1, q, q + 1]].tolist())


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


def _pairs_of_one_picture(
    records: np.ndarray, keys: np.ndarray, picture: np.ndarray
) -> Iterator[tuple[int, int]]:
    new = np.flatnonzero((picture[1:] != picture[:-1]) | (keys[1:] != keys[:-1])) + 1
    for group in np.split(records, new):
        for place, one in enumerate(group[:-1].tolist()):
            yield from ((one, other) for other in group[place + 1 :].tolist())


def _pairs_of_two(
    records: np.ndarray, keys: np.ndarray, first: int, last: int, other_first: int, other_last: int
) -> Iterator[tuple[int, int]]:
    for place in range(first, last):
        same = np.searchsorted(keys[other_first:other_last], keys[place], "left") + other_first
        while same < other_last and keys[same] == keys[place]:
            yield int(records[place]), int(records[same])
            same += 1


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
