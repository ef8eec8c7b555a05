"""Batches that are unlike each other in all that varies go through a real engine and two ranks that must keep in step.

The learners hold every token against the engine's number and stop at 1e-4; after each update the engine gets the new
weights, and the proof must hold again.
"""

from __future__ import annotations

import math

import pytest

from mixed_r1_ray.remote import fetch
from mixed_r1_ray.rewards import RewardRequest, score_batch

LIMIT = 1e-4
BATCHES = {  # sizes of the pictures of each prompt
    "one picture a prompt": [[(112, 112)], [(112, 112)], [(112, 112)]],
    "several pictures, of many sizes": [[(112, 112), (30, 30)], [(224, 112)], [(57, 90), (112, 40), (90, 57)]],
    "text among pictures": [[(112, 112)], [], [(60, 100), (112, 40)], []],
    "one rank without a picture": [[(112, 112)], []],
    "text alone": [[], [], []],
}


@pytest.fixture(params=["internvl", pytest.param("qwen2_5_vl", marks=pytest.mark.slow)])
def parts(request, start_parts):
    return start_parts(request.param)


def prompts_of(parts, sizes):
    return [parts.prompt(f"p{number}", one, "Where?" + " a" * number) for number, one in enumerate(sizes)]


def in_turn(group) -> list[float]:
    """Some reward for each sample, never the same for all."""
    return [float(number % 2) for number in range(len(group.info.response_lengths))]


def learn(parts, groups, rewards) -> dict[str, float]:
    """An update and what must hold of it, and of the weights afterwards."""
    metrics = parts.learners.update(parts.batch(groups, rewards))
    assert metrics["mismatch/logprob_abs_max"] <= LIMIT
    assert all(math.isfinite(value) for value in metrics.values())
    parts.sync(version=1)
    assert parts.prove([group.prompt for group in groups], step=2) <= LIMIT
    return metrics


@pytest.mark.parametrize("name", BATCHES)
def test_pictures_of_any_number_and_size(parts, name):
    groups = parts.sample(prompts_of(parts, BATCHES[name]))
    assert learn(parts, groups, in_turn)["grad_norm"] > 0


def test_responses_cut_at_the_limit_beside_finished_ones(parts):
    """An untrained model ends its answer once in a few hundred tokens."""
    groups = parts.sample(prompts_of(parts, [[(112, 112)], [], [(57, 90)]] * 8), max_new_tokens=128)
    finished = [done for group in groups for done in group.info.finished]
    assert any(finished) and not all(finished)
    assert learn(parts, groups, in_turn)["grad_norm"] > 0


def test_a_group_whose_samples_all_lack_an_answer_and_one_that_was_not_scored(parts):
    """An untrained model says no <answer>: scored by the real reward that group is all zeros, and moves nothing."""
    groups = parts.sample(prompts_of(parts, [[(112, 112)], [], [(57, 90)]]))

    def rewards(group):
        if group.prompt.prompt_id == "p0":
            texts = [rollout.text for rollout in fetch(group.group, what="texts", deadline_s=60.0).rollouts]
            return [score.total for score in score_batch([RewardRequest("matching", text, "yes") for text in texts])]
        return [None] * 4 if group.prompt.prompt_id == "p1" else in_turn(group)

    assert rewards(groups[0]) == [0.0] * 4
    batch = parts.batch(groups, rewards)
    assert batch.num_samples == 8
    assert learn(parts, groups, rewards)["grad_norm"] > 0


def test_nothing_to_learn_leaves_the_gradient_at_zero(parts):
    groups = parts.sample(prompts_of(parts, [[(112, 112)], []]))
    assert learn(parts, groups, lambda group: [0.0] * 4)["grad_norm"] == 0.0
