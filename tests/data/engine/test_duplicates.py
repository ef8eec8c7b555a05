"""Stage 1: one record of each set of duplicates stays, whatever the order of files; lookalikes all stay."""

from __future__ import annotations

import numpy as np
from engine_cases import Asked, bars, encoded, names, photo, reencoded, table_of

from mixed_r1_ray.data.engine import hamming
from mixed_r1_ray.data.engine.duplicates import _Join, drop_duplicates
from mixed_r1_ray.data.engine.settings import DuplicateSettings, PictureSettings
from mixed_r1_ray.data.engine.verdicts import STAGES, Verdicts
from mixed_r1_ray.data.schema import Record, write_records

CHART = encoded(bars((80, 30, 55)))
PHOTO = photo(3)


def dropped(tmp_path, *files, **settings) -> dict[str, tuple[str, str]]:
    """id of each dropped record -> stage and id of the record that it resembles."""
    table = table_of(tmp_path, *files)
    verdicts = Verdicts.none_yet(len(table))
    drop_duplicates(table, verdicts, DuplicateSettings(**settings), PictureSettings())
    name = names(table)
    return {
        name[one]: (STAGES[verdicts.stage[one]], name.get(int(verdicts.like[one])))
        for one in np.flatnonzero(verdicts.stage).tolist()
    }


def test_the_same_picture_and_question_twice_is_a_duplicate(tmp_path):
    asked = [Asked("a", CHART), Asked("b", CHART, "HOW many bars are there in this chart")]
    asked += [Asked("c", CHART, "How tall?")]
    found = dropped(tmp_path, asked)
    assert list(found.values()) in ([("exact duplicate", "a")], [("exact duplicate", "b")])
    assert "c" not in found


def test_saved_anew_it_is_a_near_duplicate_and_the_largest_stays(tmp_path):
    asked = [Asked(way, picture) for way, picture in reencoded(PHOTO).items() if "resized" in way]
    found = dropped(tmp_path, [*asked, Asked("original", encoded(PHOTO))])
    assert found == {one.id: ("near duplicate", "original") for one in asked}


def test_a_box_moves_with_the_size_of_its_picture(tmp_path):
    small = reencoded(PHOTO)["resized"]  # 140 x 98
    question = "Where is the dog?"
    asked = [
        Asked("large", encoded(PHOTO), question, "[20, 30, 120, 100]", "iou"),
        Asked("small", small, question, "[14, 21, 84, 70]", "iou"),
        Asked("elsewhere", small, question + " The other one?", "[50, 21, 120, 70]", "iou"),
    ]
    assert dropped(tmp_path, asked) == {"small": ("near duplicate", "large")}


def test_another_question_another_answer_or_a_lookalike_is_none(tmp_path):
    jpeg = reencoded(PHOTO)["jpeg"]
    kept = [
        Asked("a", encoded(PHOTO), "How many dogs?", "3"),
        Asked("b", encoded(PHOTO), "How many cats?", "3"),
        Asked("c", jpeg, "How many dogs?", "4"),
        Asked("d", encoded(bars((80, 30, 55))), "What is the value of the red bar?", "80"),
        Asked("e", encoded(bars((80, 30, 51))), "What is the value of the red bar?", "80"),
        Asked("f", encoded(bars((80, 30, 55))), "A chart?", "Bars of 80, 30 and 55.", "open_ended"),
        Asked("g", encoded(bars((80, 30, 51))), "A chart?", "Bars of 80, 30 and 51.", "open_ended"),
    ]
    assert dropped(tmp_path, kept) == {}


def test_captions_of_one_picture_are_duplicates_whatever_they_are_asked(tmp_path):
    asked = [
        Asked("a", encoded(PHOTO), "Describe it in detail.", "A long text.", "open_ended", "detail"),
        Asked("b", reencoded(PHOTO)["resized"], "What do you see?", "A dog.", "open_ended", "short"),
    ]
    assert dropped(tmp_path / "one", asked) == {"b": ("near duplicate", "a")}
    assert dropped(tmp_path / "two", asked, captions_by_picture=False) == {}


def test_further_pictures_count_too(tmp_path):
    one, other = encoded(photo(5)), encoded(photo(6))
    asked = [
        Asked("a", (encoded(PHOTO), one)),
        Asked("b", (reencoded(PHOTO)["resized"], other)),
        Asked("c", (reencoded(PHOTO)["resized"],)),
        Asked("d", (reencoded(PHOTO)["resized"], reencoded(photo(5))["resized"])),
    ]
    assert dropped(tmp_path, asked) == {"d": ("near duplicate", "a")}


def test_records_without_pictures_are_compared_by_their_question(tmp_path):
    asked = [Asked("a", (), "What is 2 + 2?", "4", "math"), Asked("b", (), "what is 2+2?", "4", "math")]
    asked += [Asked("c", (), "What is 2 + 3?", "5", "math")]
    found = dropped(tmp_path, asked)
    assert len(found) == 1 and "c" not in found


def test_likeness_is_no_chain(tmp_path):
    """b is near a, c is near b but not near a: b goes for a, and c, which resembles nothing that stays, stays."""
    one, two, three = (f"Is the {word} there?" for word in ("colour", "colur", "clur"))
    pixels = encoded(PHOTO), reencoded(PHOTO)["resized"], reencoded(PHOTO.resize((160, 112)))["resized"]
    asked = [Asked(*words) for words in zip("abc", pixels, (one, two, three), strict=True)]
    assert dropped(tmp_path, asked) == {"b": ("near duplicate", "a")}


def test_what_stays_does_not_depend_on_files_or_their_order(tmp_path):
    pictures = [photo(seed) for seed in range(6)]
    asked = [
        Asked(f"{seed}-{way}", data)
        for seed, picture in enumerate(pictures)
        for way, data in {"png": encoded(picture), "png again": encoded(picture), **reencoded(picture)}.items()
    ]
    first = dropped(tmp_path / "one", asked)
    again = dropped(tmp_path / "two", asked[::-1][:17], asked[::-1][17:])
    assert first == again
    assert len(first) == len(asked) - len(pictures)


def test_what_training_would_leave_out_and_ids_that_repeat_are_unusable(tmp_path):
    broken = Record("broken", "charts", "chart", (CHART[:60],), ((112, 112),), "Q?", "1")
    goldless = Record("goldless", "vsr", "iou", (CHART,), ((112, 112),), "Where?", "at the left")
    odd = Record("odd", "vsr", "matching", (CHART,), ((112, 112),), "Is it?", "yes", meta="[")
    write_records(tmp_path / "z.parquet", [broken, goldless, odd])
    asked = [Asked("a", CHART), Asked("a", CHART, "How tall is the red bar?")]
    found = dropped(tmp_path, asked)
    assert found.pop("a") == ("unusable", "a")
    assert found == dict.fromkeys(("broken", "goldless", "odd"), ("unusable", None))


def test_records_of_pairs_of_pictures_are_joined_by_their_keys(monkeypatch):
    monkeypatch.setattr(hamming, "BLOCK_PAIRS", 5)
    random = np.random.default_rng(0)
    picture, keys = random.integers(0, 6, 40), random.integers(0, 3, 40).astype(np.uint64)
    p, q = np.array([0, 0, 3, 5, 2]), np.array([0, 4, 1, 5, 3])
    found = [pair for i, j in _Join(picture, keys).pairs(p, q) for pair in zip(i.tolist(), j.tolist(), strict=True)]
    expected = [
        (i, j)
        for one, other in zip(p, q, strict=True)
        for i in np.flatnonzero(picture == one).tolist()
        for j in np.flatnonzero(picture == other).tolist()
        if keys[i] == keys[j]
    ]
    assert sorted(found) == sorted(expected) and len(expected) > 30


def test_each_kind_can_be_switched_off(tmp_path):
    asked = [Asked("a", CHART), Asked("b", CHART), Asked("c", reencoded(bars((80, 30, 55)))["resized"])]
    assert set(dropped(tmp_path / "1", asked, near=False)) in ({"a"}, {"b"})
    assert dropped(tmp_path / "2", asked, exact=False, near=False) == {}
