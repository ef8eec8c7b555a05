"""Questions that say their own answer, and those that only seem to."""

from __future__ import annotations

import pytest

from mixed_r1_ray.data.giveaway import find_giveaway

CHOICES = ["a cat", "a dog"]


@pytest.mark.parametrize(
    "reward_type, question, answer, choices",
    [
        ("matching", "What is it?\n(A) a cat\n(B) a dog\nAnswer: B", "B", CHOICES),
        ("matching", "What is it? (A) a cat (B) a dog. The correct answer is (B).", "B", CHOICES),
        ("matching", "What is it? The answer is a dog.", "B", CHOICES),
        ("matching", "What is it? The answer is B. Explain why.", "a dog", None),
        ("matching", "Is it red? Answer: yes", "yes", None),
        ("chart", "How many? <answer>12</answer>", "12", None),
        ("chart", "How many? Solution: 12", '{"any_of": ["12", "twelve"]}', None),
        ("math", "Find x. \\boxed{7}", "7", None),
        ("iou", "Where is the dog, at [10, 20.5, 30, 40]?", "[10.0, 20.5, 30.0, 40.0]", None),
        ("iou", "The dog is at 10 20 30 40?", "[[10, 20, 30, 40]]", None),
        ("open_ended", "Rewrite: A brown dog on grass. Describe the picture.", "A brown dog on grass.", None),
    ],
)
def test_an_answer_that_is_said_is_found(reward_type, question, answer, choices):
    if question.startswith("What is it? The answer is B."):
        choices, answer = CHOICES, "B"
    assert find_giveaway(reward_type, question, answer, choices)


@pytest.mark.parametrize(
    "reward_type, question, answer, choices",
    [
        ("matching", "What is it?\n(A) a cat\n(B) a dog", "B", CHOICES),
        ("matching", "What is it?\n(A) a cat\n(B) a dog\nAnswer with the letter.", "B", CHOICES),
        ("matching", "What is it? The answer is one of: a cat, a dog.", "B", CHOICES),
        ("matching", "Is it black or white?", "white", None),
        ("matching", "Is it red? Answer yes or no.", "yes", None),
        ("matching", "Is it red? The answer is not easy.", "no", None),
        ("chart", "What happened in 2010, 12 years after 1998?", "12", None),
        ("iou", "Where are the 10 dogs in these 20 rooms?", "[10, 20, 30, 40]", None),
        ("open_ended", "Describe the dog.", "dog", None),
    ],
)
def test_a_gold_that_only_occurs_is_no_giveaway(reward_type, question, answer, choices):
    assert find_giveaway(reward_type, question, answer, choices) is None
