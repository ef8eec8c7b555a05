"""Stage 3, the rules: which records are neither too easy nor too hard to learn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mixed_r1_ray.data.engine.settings import Band
from mixed_r1_ray.data.engine.table import SignatureTable
from mixed_r1_ray.data.engine.verdicts import Verdicts


@dataclass(frozen=True, slots=True)
class Answers:
    """What the answers of each record earned. Arrays over N; NaN where a record was not asked or not scored."""

    mean: np.ndarray  # float64, of the task reward
    std: np.ndarray  # float64, over the answers that were scored (divided by their number)
    num_scored: np.ndarray  # int32
    num_samples: int
    unusable: Mapping[int, str]  # record -> why it could not be asked

    @classmethod
    def none_yet(cls, number: int, num_samples: int) -> Answers:
        return cls(np.full(number, np.nan), np.full(number, np.nan), np.zeros(number, np.int32), num_samples, {})


def drop_by_answers(
    table: SignatureTable, verdicts: Verdicts, answers: Answers, bands: Mapping[str, Band]
) -> None:
    """Marks records outside the band of their reward type.

    A mean over fewer than half of the answers says too little: such a record counts as unscored (choice).
    """
    verdicts.drop(np.array(sorted(answers.unusable), np.int64), "unusable")
    alive = verdicts.alive()
    verdicts.drop(alive[2 * answers.num_scored[alive] < answers.num_samples], "unscored")
    for number, kind in enumerate(table.kinds):
        alive = verdicts.alive()
        alive = alive[table.kind[alive] == number]
        band = bands[kind]
        least, most = band.mean
        verdicts.drop(alive[answers.mean[alive] < least], "too hard")
        verdicts.drop(alive[answers.mean[alive] > most], "too easy")
        inside = alive[(answers.mean[alive] >= least) & (answers.mean[alive] <= most)]
        verdicts.drop(inside[answers.std[inside] < band.min_std], "no spread")


def describe(stage: str, record: int, answers: Answers) -> str:
    """Why this stage dropped the record, with its figures."""
    if stage == "unusable":
        return answers.unusable[record]
    if stage == "unscored":
        return f"{answers.num_scored[record]} of {answers.num_samples} answers could be scored"
    return (
        f"mean task reward {answers.mean[record]:.3f}, standard deviation {answers.std[record]:.3f} "
        f"over {answers.num_scored[record]} answers"
    )
