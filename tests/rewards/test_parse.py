from __future__ import annotations

import pytest

from mixed_r1_ray.rewards.parse import extract_answer, normalise, unwrap, without_lead_in


def test_no_answer_is_none_and_an_empty_one_is_empty():
    assert extract_answer("<think>x</think>") is None
    assert extract_answer("<answer></answer>") == ""


def test_a_thought_within_the_answer_is_cut_out():
    assert extract_answer("<answer>a <think>b <answer>c</answer></think>d</answer>") == "a d"


def test_tags_with_look_alike_letters_are_no_tags():
    assert extract_answer("<anſwer>a</anſwer><thinK>b</thinK>") is None


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        (r"$\boxed{\text{B}}$", "B"),
        ("**`B`**", "B"),
        ("“B”.", "B"),
        ("  a \n\t b  ", "a b"),
        ("$5", "$5"),
        ("snake_case", "snake_case"),
        (r"50\%", "50%"),
        ("Ｂ", "B"),
        ("...", ""),
    ],
)
def test_unwrap(text, bare):
    assert unwrap(text) == bare


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("The  Cat!", "cat"),
        ("The", "the"),
        ("-3.5", "-3.5"),
        ("12,345", "12345"),
        ("1,2", "1 2"),
        ("a-b", "a b"),
        ("the vitamin A", "vitamin a"),
        ("U.S.A.", "usa"),
        ("e.g. that", "eg that"),
        ("ＡＢＣ", "abc"),
        ("?!", ""),
    ],
)
def test_normalise(text, form):
    assert normalise(text) == form


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("The answer is: red", "red"),
        ("So, my final answer is red", "red"),
        ("Answer: red", "red"),
        ("It's red", "red"),
        ("answering machine", "answering machine"),
        ("Italy", "Italy"),
        ("The answers", "The answers"),
    ],
)
def test_lead_ins(text, rest):
    assert without_lead_in(text) == rest
