"""Stage 2: evaluation data is found in the training data, saved anew or asked differently, and named."""

from __future__ import annotations

import numpy as np
from engine_cases import Asked, bars, encoded, names, photo, reencoded, table_of

from mixed_r1_ray.data.engine.contamination import drop_contaminated
from mixed_r1_ray.data.engine.settings import ContaminationSettings, PictureSettings
from mixed_r1_ray.data.engine.verdicts import STAGES, Verdicts

LONG = "A train leaves the station at {} o'clock and drives {} kilometres; how long does it take?"


def dropped(tmp_path, mine, theirs, **settings) -> dict[str, str]:
    """id of each dropped record -> id of the evaluation record."""
    table, held_out = table_of(tmp_path / "train", mine), table_of(tmp_path / "eval", theirs)
    verdicts = Verdicts.none_yet(len(table))
    drop_contaminated(table, verdicts, 0, held_out, ContaminationSettings(**settings), PictureSettings())
    mine, others = names(table), names(held_out)
    assert {STAGES[stage] for stage in verdicts.stage[verdicts.of == 0].tolist()} <= {"contaminated"}
    return {mine[one]: others[int(verdicts.like[one])] for one in np.flatnonzero(verdicts.stage).tolist()}


def test_an_evaluation_picture_is_not_trained_on_whatever_it_is_asked(tmp_path):
    theirs = [Asked(f"eval-{seed}", encoded(photo(seed)), "Eval question?") for seed in range(4)]
    ways = [(seed, way, data) for seed in (1, 2) for way, data in reencoded(photo(seed)).items()]
    mine = [Asked(f"{seed}-{way}", data, f"Other {way}?") for seed, way, data in ways]
    mine += [Asked("clean", encoded(photo(9)))]
    assert dropped(tmp_path, mine, theirs) == {one.id: f"eval-{one.id[0]}" for one in mine if one.id != "clean"}


def test_lookalikes_of_evaluation_pictures_are_trained_on(tmp_path):
    theirs = [Asked("eval", encoded(bars((80, 30, 55))), "How many bars?")]
    mine = [Asked("other", encoded(bars((80, 30, 51))), "How many bars?")]
    mine += [Asked("same", encoded(bars((80, 30, 55)), "JPEG"))]
    assert dropped(tmp_path, mine, theirs) == {"same": "eval"}


def test_with_picture_and_question_other_questions_stay(tmp_path):
    theirs = [Asked("eval", encoded(photo(1)), "How many dogs?")]
    mine = [Asked("a", reencoded(photo(1))["jpeg"], "how many DOGS"), Asked("b", encoded(photo(1)), "How many cats?")]
    assert dropped(tmp_path, mine, theirs, match="picture_and_question") == {"a": "eval"}


def test_any_picture_of_several_counts(tmp_path):
    theirs = [Asked("eval", (encoded(photo(1)), encoded(photo(2))))]
    mine = [Asked("a", (encoded(photo(7)), reencoded(photo(2))["jpeg"]), "Q?"), Asked("b", (encoded(photo(8)),), "Q?")]
    assert dropped(tmp_path, mine, theirs) == {"a": "eval"}


def test_a_long_question_with_its_answer_is_enough_however_the_picture_was_drawn(tmp_path):
    theirs = [Asked("eval", encoded(photo(1)), LONG.format(9, 80), "2 h")]
    theirs += [Asked("text", (), LONG.format(7, 50), "1 h", "math")]
    mine = [
        Asked("redrawn", encoded(photo(5)), LONG.format(9, 80), "2 h"),
        Asked("bare", (), LONG.format(7, 50).upper(), "1 h", "math"),
        Asked("other answer", encoded(photo(6)), LONG.format(9, 80), "3 h"),
        Asked("other numbers", encoded(photo(7)), LONG.format(9, 90), "2 h"),
    ]
    assert dropped(tmp_path, mine, theirs) == {"redrawn": "eval", "bare": "text"}


def test_templates_and_short_questions_are_not(tmp_path):
    theirs = [Asked("eval", encoded(photo(1)), LONG.format(9, 80), "2 h")]
    theirs += [Asked("short", encoded(photo(2)), "Who?", "Me")]
    mine = [Asked(f"{seed}", encoded(photo(seed)), LONG.format(9, 80), "2 h") for seed in range(10, 14)]
    mine += [Asked("who", encoded(photo(20)), "Who?", "Me")]
    assert dropped(tmp_path, mine, theirs) == {}
    assert len(dropped(tmp_path / "again", mine, theirs, question_repeats=4)) == 4


def test_an_evaluation_set_without_pictures_is_no_trouble(tmp_path):
    theirs = [Asked("text", (), "What is 2 + 2?", "4", "math")]
    assert dropped(tmp_path, [Asked("a", encoded(photo(1)))], theirs) == {}
