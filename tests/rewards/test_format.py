from __future__ import annotations

import pytest

from mixed_r1_ray.rewards.format import format_score


@pytest.mark.parametrize(
    "response",
    [
        "<think>a</think><answer>b</answer>",
        "<think>a</think>\n<answer>b</answer>",
        "  <think>\na\n\nb</think> \n\t <answer>\nb\n</answer>\n",
        "<think></think><answer></answer>",
        "<think>2 < 3 and <b></think><answer>x</answer>",
    ],
)
def test_one_thought_then_one_answer(response):
    assert format_score(response) == 1.0


@pytest.mark.parametrize(
    "response",
    [
        "",
        "b",
        "<answer>b</answer>",
        "<think>a</think>",
        "<think>a</think><answer>b",
        "<think>a<answer>b</answer>",
        "a</think><answer>b</answer>",
        "<answer>b</answer><think>a</think>",
        "<think>a</think> so <answer>b</answer>",
        "Sure! <think>a</think><answer>b</answer>",
        "<think>a</think><answer>b</answer> done",
        "<think>a</think><answer>b</answer><answer>c</answer>",
        "<think>a</think><think>a</think><answer>b</answer>",
        "<think>a<think>b</think></think><answer>b</answer>",
        "<think>a<answer>b</answer></think>",
        "<think><answer>b</think></answer>",
        "<THINK>a</THINK><ANSWER>b</ANSWER>",
        "<think >a</think><answer>b</answer>",
    ],
)
def test_anything_else(response):
    assert format_score(response) == 0.0
