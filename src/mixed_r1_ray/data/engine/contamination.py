"""Stage 2: records that resemble one of an evaluation set are left out, and the one that they resemble is named."""

from __future__ import annotations

import numpy as np

from mixed_r1_ray.data.engine.duplicates import near_pictures
from mixed_r1_ray.data.engine.settings import ContaminationSettings, PictureSettings
from mixed_r1_ray.data.engine.table import SignatureTable
from mixed_r1_ray.data.engine.verdicts import Verdicts


def drop_contaminated(
    table: SignatureTable,
    verdicts: Verdicts,
    number: int,
    held_out: SignatureTable,
    settings: ContaminationSettings,
    pictures: PictureSettings,
) -> None:
    """Marks what resembles a record of `held_out`, the evaluation set with this number.

    By picture: any picture of one is any of the other. By question: both ask the same in `question_words` words or
    more, have the same answer, and neither set asks it of more than `question_repeats` records. Templates are told by
    their number and not by a hash of the pictures, for those of two charts of one kind are alike (choice).
    """
    for like in (
        _by_picture(table, verdicts.alive(), held_out, settings, pictures),
        _by_question(table, verdicts.alive(), held_out, settings),
    ):
        records = np.array(sorted(one for one in like if verdicts.stage[one] == 0), np.int64)
        verdicts.drop(records, "contaminated", like=np.array([like[one] for one in records.tolist()]), of=number)


def _by_picture(
    table: SignatureTable,
    alive: np.ndarray,
    held_out: SignatureTable,
    settings: ContaminationSettings,
    pictures: PictureSettings,
) -> dict[int, int]:
    """Record -> record of the evaluation set that it resembles most preferably: that with the least key."""
    is_alive = np.zeros(len(table), bool)
    is_alive[alive] = True
    owners, theirs = table.owners(), held_out.owners()
    mine = np.flatnonzero(is_alive[owners])
    like: dict[int, int] = {}
    for i, j in near_pictures(table, mine, held_out, np.arange(len(theirs)), pictures):
        pairs = owners[mine[i]], theirs[j]
        if settings.match == "picture_and_question":
            same = table.numbers["asked"][pairs[0]] == held_out.numbers["asked"][pairs[1]]
            pairs = tuple(side[same] for side in pairs)
        _note(like, *pairs, held_out)
    return like


def _by_question(
    table: SignatureTable, alive: np.ndarray, held_out: SignatureTable, settings: ContaminationSettings
) -> dict[int, int]:
    mine = alive[_telling(table, settings)[alive]]
    theirs = np.flatnonzero(_telling(held_out, settings))
    asked = held_out.numbers["asked"]
    theirs = theirs[np.argsort(asked[theirs], kind="stable")]
    bounds = [np.searchsorted(asked[theirs], table.numbers["asked"][mine], side) for side in ("left", "right")]
    like: dict[int, int] = {}
    for record, first, last in zip(mine.tolist(), *(side.tolist() for side in bounds), strict=True):
        others = theirs[first:last]
        others = others[held_out.numbers["answered"][others] == table.numbers["answered"][record]]
        _note(like, np.full(len(others), record), others, held_out)
    return like


def _telling(table: SignatureTable, settings: ContaminationSettings) -> np.ndarray:
    """(N,) bool: questions that are long, and no template."""
    _, place, counts = np.unique(table.numbers["asked"], return_inverse=True, return_counts=True)
    return (table.numbers["words"] >= settings.question_words) & (counts[place] <= settings.question_repeats)


def _note(like: dict[int, int], records: np.ndarray, others: np.ndarray, held_out: SignatureTable) -> None:
    key = held_out.numbers["key"]
    for record, other in zip(records.tolist(), others.tolist(), strict=True):
        if record not in like or (key[other], other) < (key[like[record]], like[record]):
            like[record] = other
