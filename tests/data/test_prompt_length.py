"""Lengths of prompts are those of the real processor, without processing every picture."""

from __future__ import annotations

import numpy as np
import pytest

from mixed_r1_ray.config_load import load_config
from mixed_r1_ray.data.prompt_length import PromptLengths
from mixed_r1_ray.vlm.families import load_adapter


@pytest.fixture(scope="module")
def lengths(checkpoint) -> PromptLengths:
    words = [
        f"model.path={checkpoint}",
        "model.max_length=200",
        "rollout.max_new_tokens=64",
        "data.system=Be brief.",
    ]
    config = load_config([*words, "data.template=Look. {question} Think."], conf_needed=False)
    return PromptLengths(load_adapter(config.model), config)


@pytest.mark.parametrize("sizes", [(), ((112, 112),), ((200, 90),), ((64, 64), (150, 100))])
@pytest.mark.parametrize("question", ["Where is the red circle?", "a", "What is the value\nof the blue bar?"])
def test_lengths_are_those_of_the_processor(lengths, question, sizes):
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 255, (height, width, 3), dtype=np.uint8) for width, height in sizes]
    text = lengths.adapter.prompt_text(f"Look. {question} Think.", len(sizes), "Be brief.")
    assert lengths.length(question, sizes) == len(lengths.adapter.encode(text, pictures).input_ids)


def test_a_prompt_that_leaves_no_room_says_the_sum(lengths):
    fault = lengths.find_fault("red " * 150, ((112, 112),))
    assert (
        fault[0] == "question" and "model.max_length 200 - rollout.max_new_tokens 64 leaves 136" in fault[1]
    )
    assert lengths.find_fault("red?", ((112, 112),)) is None


def test_a_placeholder_in_the_question_is_a_fault_of_the_prompt(lengths):
    field, reason = lengths.find_fault(f"What is {lengths.adapter.media_tokens[0]}?", ())
    assert field == "prompt" and lengths.adapter.media_tokens[0] in reason
