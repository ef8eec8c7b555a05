"""No response raises, leaves [0, 1], or takes more than linear time; wrapping does not change a score."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from mixed_r1_ray.rewards import EmbeddingTable, score

CHOICES = ("a dog", "a cat", "a bird", "3.5")
GOLDS = [
    ("matching", "B", {"choices": CHOICES}),
    ("matching", "B", {}),
    ("matching", "yes", {}),
    ("matching", "red car", {}),
    ("chart", "42", {}),
    ("chart", "Red", {}),
    ("chart", "[Red, 3, 50%]", {}),
    ("chart", "Red", {"chart_mode": "edit_distance"}),
    ("iou", "[1, 2, 3, 4]", {}),
    ("iou", "[[1, 2, 3, 4], [5, 6, 7, 8]]", {"iou_mode": "dynamic", "progress": 0.3}),
    ("counting", "3", {}),
    ("counting", "twelve", {"counting_mode": "relative"}),
    ("open_ended", "a red circle", {}),
]
PIECES = (
    """<think> </think> <answer> </answer> [ ] ( ) { } , . : ; " ' ` ** \\boxed{ } $ % - + e 1e999 nan
            inf bbox_2d label A B E yes no true option answer is the a I red cat dog 3.5 42 1,000 million not
            or and because 2010 ９ ﷺ é \ud800 \x00 \u202e <|end|>""".split()
    + [" ", "\n", "9" * 5000, "[1, 2, 3, 4]", "a cat"]
)
broken_text = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=30).map("".join)


def scored(kind, response, embeddings):
    reward_type, gold, keywords = kind
    return score(reward_type, response, gold, embeddings=embeddings, **keywords)


@pytest.fixture(scope="module")
def table() -> EmbeddingTable:
    words = {word: number for number, word in enumerate(["<unk>", "a", "red", "circle", "cat"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return EmbeddingTable(np.random.default_rng(0).standard_normal((5, 8)), tokenizer)


@pytest.mark.parametrize("kind", GOLDS, ids=str)
@given(text=broken_text)
def test_any_text_is_scored_within_bounds(kind, text, table):
    for response in (text, f"<think>x</think><answer>{text}</answer>"):
        breakdown = scored(kind, response, table)
        assert 0.0 <= breakdown.task <= 1.0
        assert breakdown.format in (0.0, 1.0)
        assert breakdown.total == breakdown.task + 0.5 * breakdown.format


WRAPPERS = [
    "{}",
    " {}\n",
    "**{}**",
    "`{}`",
    '"{}"',
    "\\boxed{{{}}}",
    "\\text{{{}}}",
    "The answer is {}.",
    "\n\n{}.",
    "**Answer:** {}",
]
ANSWERS = [
    (GOLDS[0], ["B", "a cat", "(B)", "B. a cat", "A", "a dog", "zebra", "A or B", "E"]),
    (GOLDS[2], ["yes", "no", "yes and no", "nothing"]),
    (GOLDS[3], ["red car", "the red car", "car"]),
    (GOLDS[4], ["42", "44", "45", "42%", "nan", "1..2"]),
    (GOLDS[5], ["red", "blue"]),
]


@given(data=st.data())
def test_wrappers_white_space_and_case_do_not_matter(data):
    kind, answers = data.draw(st.sampled_from(ANSWERS))
    answer = data.draw(st.sampled_from(answers))
    wrapped = data.draw(st.sampled_from(WRAPPERS)).format(
        data.draw(st.sampled_from([answer, answer.upper(), answer.title()]))
    )
    plain = scored(kind, f"<answer>{answer}</answer>", None)
    assert scored(kind, f"<answer>{wrapped}</answer>", None).task == plain.task


@given(
    thought=st.text(max_size=50),
    junk=st.sampled_from(["B", "yes", "42", "[1, 2, 3, 4]", "<answer>B</answer>"]),
)
def test_thoughts_are_never_scored(thought, junk):
    for kind in GOLDS[:-1]:
        response = f"<think>{thought.replace('<', '')} {junk}</think> {junk.replace('answer', 'b')}"
        assert scored(kind, response, None).task == 0.0


MEGABYTE = 1_000_000
HOSTILE = [
    "<answer>", "</answer>", "<think>", "<answer>B</answer>", "[", "[]", "{", "(", "9", " ",
    "[1,2,3,4],", "$", "*", "\\boxed{", "A ", "the ", "the answer is ", "ﷺ", "1,", "1.", "a.", "-",
    "no ", "<", "\ud800", "(1,2),", '{"a":', "e", "'",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_megabyte_of_anything_is_scored_fast(piece):
    body = (piece * MEGABYTE)[:MEGABYTE]
    for response in (body, f"<think>x</think><answer>{body}</answer>"):
        start = time.process_time()
        for kind in GOLDS[:-1]:
            scored(kind, response, None)
        # A tenth of that on an idle core; quadratic time would take hours.
        assert time.process_time() - start < 3.0
