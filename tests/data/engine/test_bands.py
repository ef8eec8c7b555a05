"""Stage 3, the rules: bands are inclusive, graded rewards need spread, and what was not scored is said to be so."""

from __future__ import annotations

import numpy as np
import pytest
from engine_cases import Asked, encoded, photo, table_of

from mixed_r1_ray.data.engine.bands import Answers, describe, drop_by_answers
from mixed_r1_ray.data.engine.settings import Band, DifficultySettings
from mixed_r1_ray.data.engine.verdicts import STAGES, Verdicts

BANDS = DifficultySettings().bands


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    picture = encoded(photo(1))
    asked = [
        Asked(f"{kind}-{number}", picture, f"{kind} {number}?", kind=kind, source=kind)
        for kind in ("chart", "iou", "open_ended")
        for number in range(6)
    ]
    return table_of(tmp_path_factory.mktemp("table"), asked)


def stages(table, kind: str, means, stds=None, scored=None, bands=BANDS, num_samples=10) -> list[str]:
    """What becomes of the first records of a kind whose answers earned these."""
    of_kind = np.flatnonzero(table.kind == table.kinds.index(kind))[: len(means)]
    answers = Answers.none_yet(len(table), num_samples)
    answers.num_scored[:] = num_samples
    answers.mean[:], answers.std[:] = 0.5, 0.5
    answers.mean[of_kind] = means
    answers.std[of_kind] = 0.3 if stds is None else stds
    answers.num_scored[of_kind] = num_samples if scored is None else scored
    verdicts = Verdicts.none_yet(len(table))
    drop_by_answers(table, verdicts, answers, bands)
    return [STAGES[stage] for stage in verdicts.stage[of_kind].tolist()]


def test_the_band_of_right_or_wrong_answers_includes_its_ends(table):
    means = [0.0, np.mean([0, 0, 0, 0, 0, 0, 0, 0, 0, 1.0]), 0.5, np.mean([1.0] * 9 + [0]), 1.0]
    assert stages(table, "chart", means) == ["too hard", "kept", "kept", "kept", "too easy"]


def test_graded_rewards_are_kept_by_level_and_spread(table):
    means, stds = [0.01, 0.5, 0.5, 0.97, 0.5], [0.2, 0.04, 0.05, 0.2, 0.3]
    assert stages(table, "iou", means, stds) == ["too hard", "no spread", "kept", "too easy", "kept"]
    assert stages(table, "open_ended", [0.5, 0.5], [0.019, 0.02]) == ["no spread", "kept"]


def test_less_than_half_of_the_answers_scored_is_unscored(table):
    means = [np.nan, 0.5, 0.5]
    assert stages(table, "chart", means, scored=[0, 4, 5]) == ["unscored", "unscored", "kept"]


def test_each_type_has_its_own_band(table):
    bands = BANDS | {"chart": Band([0.4, 0.6], 0.2)}
    assert stages(table, "chart", [0.3, 0.5, 0.5], [0.3, 0.1, 0.2], bands=bands) == ["too hard", "no spread", "kept"]


def test_the_ledger_says_with_which_figures(table):
    answers = Answers.none_yet(len(table), 8)
    answers.mean[3], answers.std[3], answers.num_scored[3] = 0.9375, 0.24206, 8
    assert describe("too easy", 3, answers) == (
        "mean task reward 0.938, standard deviation 0.242 over 8 answers"
    )
    assert describe("unscored", 4, answers) == "0 of 8 answers could be scored"
