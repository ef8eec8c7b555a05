"""Questions and answers: what is only written differently, and what is another one."""

from __future__ import annotations

import pytest

from mixed_r1_ray.data.engine.texts import near_answers, near_questions, normalised, normalised_answer

LEAST = 0.85


@pytest.mark.parametrize(
    "text, expected",
    [
        ("What's  the Value?\n", "what s the value"),
        ("(A) 1.5 (B) -15%", "a 1.5 b -15%"),
        ("Ist das GROẞ?", "ist das gross"),
        ("x \u2212 5 < ７", "x - 5 < 7"),
        ("2+2, 5-3", "2 + 2 5 - 3"),
        ("2 + 2 and +2 well-known", "2 + 2 and +2 well known"),
        ("???", "???"),
    ],
)
def test_case_space_and_punctuation_do_not_count_but_numbers_do(text, expected):
    assert normalised(text) == expected


@pytest.mark.parametrize(
    "one, other",
    [
        ("Which colour is the car?", "which color is the car"),
        ("How many bars are there?", "How many bars are there ?"),
        ("Wich bar is tallest?", "Which bar is tallest?"),
    ],
)
def test_spelling_does_not_make_another_question(one, other):
    assert near_questions(normalised(one), normalised(other), LEAST)


@pytest.mark.parametrize(
    "one, other",
    [
        ("Is the cup at the top left?", "Is the cup at the top right?"),
        ("What is the value of the red bar?", "What is the value of the blue bar?"),
        ("What was it in 2015?", "What was it in 2016?"),
        ("Is the man older?", "Is the woman older?"),
        ("Is A above B?", "Is B above A?"),
        ("Did it increase?", "Did it decrease?"),
        ("Is it red?", "Is it not red?"),
    ],
)
def test_one_other_word_makes_another_question(one, other):
    assert not near_questions(normalised(one), normalised(other), LEAST)


def test_boxes_are_compared_by_their_place_in_the_picture():
    large = normalised_answer("iou", "[10, 20, 60, 80]", (100, 100))
    small = normalised_answer("iou", "[[7, 14, 42, 56]]", (70, 70))
    moved = normalised_answer("iou", "[13, 20, 63, 80]", (100, 100))
    assert near_answers(large, small)
    assert not near_answers(large, moved)
    assert not near_answers(large, normalised_answer("iou", "[[10, 20, 60, 80], [0, 0, 9, 9]]", (100, 100)))


def test_other_answers_must_be_equal():
    assert near_answers(normalised_answer("chart", "Yes.", None), normalised_answer("chart", "yes", None))
    assert not near_answers(normalised_answer("chart", "52", None), normalised_answer("chart", "50", None))
