from __future__ import annotations

import subprocess
import sys

import pytest

from mixed_r1_ray.rewards import GoldError, RewardOptions, RewardRequest, score, score_batch
from mixed_r1_ray.types import BoxFrame

GOOD = "<think>x</think><answer>{}</answer>"


def test_the_total_is_the_weighted_sum():
    breakdown = score("matching", GOOD.format("yes"), "yes")
    assert (breakdown.total, breakdown.task, breakdown.format) == (1.5, 1.0, 1.0)
    breakdown = score("matching", "<answer>yes</answer>", "yes", task_weight=2.0, format_weight=0.25)
    assert (breakdown.total, breakdown.task, breakdown.format) == (2.0, 1.0, 0.0)
    breakdown = score("matching", GOOD.format("no"), "yes", task_weight=2.0, format_weight=0.25)
    assert (breakdown.total, breakdown.task, breakdown.format) == (0.25, 0.0, 1.0)


def test_unparseable_gold_is_unscored_not_zero_and_leaves_the_others_alone(embeddings):
    requests = [
        RewardRequest("iou", GOOD.format("[1, 2, 3, 4]"), "[1, 2, 3]"),
        RewardRequest("matching", GOOD.format("B"), "B", choices=("x", "y")),
        RewardRequest("open_ended", GOOD.format("a red circle"), "<|end|>"),
        RewardRequest("open_ended", GOOD.format("a red circle"), "a red circle"),
        RewardRequest("chart", GOOD.format("3"), "nan"),
    ]
    breakdowns = score_batch(requests, embeddings=embeddings)
    assert [breakdown.total for breakdown in breakdowns] == [None, 1.5, None, 1.5, None]
    assert breakdowns[0].task is None and breakdowns[0].format is None
    assert "no box" in breakdowns[0].detail and "no tokens" in breakdowns[2].detail


def test_unparseable_gold_raises_for_a_single_response(embeddings):
    for reward_type, gold in (("iou", "[1]"), ("matching", ""), ("chart", "inf"), ("open_ended", "<|end|>")):
        with pytest.raises(GoldError):
            score(reward_type, GOOD.format("x"), gold, embeddings=embeddings)
    with pytest.raises(GoldError, match="no text"):
        score("iou", GOOD.format("x"), [1, 2, 3, 4])


def test_a_frame_needs_the_image_size():
    with pytest.raises(GoldError, match="image_size"):
        score("iou", GOOD.format("[1, 2, 3, 4]"), "[1, 2, 3, 4]", box_frame=BoxFrame(1000, 1000))


def test_a_batch_is_scored_as_one_by_one(embeddings):
    texts = ["a red circle", "the blue square .", "", "red", "a a a a", "square at the top left"]
    requests = [
        RewardRequest("open_ended", GOOD.format(text), gold) for gold in texts if gold for text in texts
    ]
    together = score_batch(requests, embeddings=embeddings)
    alone = [
        score("open_ended", request.response, request.gold, embeddings=embeddings) for request in requests
    ]
    assert [b.total for b in together] == pytest.approx([b.total for b in alone], abs=1e-6)


def test_unknown_names_are_told_their_neighbours():
    with pytest.raises(TypeError, match="'chart_mod'; did you mean 'chart_mode'"):
        score("chart", "", "3", chart_mod="exact")
    with pytest.raises(ValueError, match="'open_end'; did you mean 'open_ended'"):
        score("open_end", "", "3")
    with pytest.raises(ValueError, match="bmas_mode='max': expected one of mean, f1"):
        RewardOptions(bmas_mode="max")
    with pytest.raises(ValueError, match="progress"):
        RewardOptions(progress=1.5)


def test_importing_the_rewards_is_light():
    heavy = "torch ray vllm transformers scipy rapidfuzz tokenizers safetensors".split()
    code = f"import sys, mixed_r1_ray.rewards; print([m for m in {heavy} if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )
