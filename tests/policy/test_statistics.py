"""A step's statistics: sums over microbatches and ranks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch

from mixed_r1_ray.algo.correction import Correction
from mixed_r1_ray.algo.losses import TokenLoss
from mixed_r1_ray.algo.objective import Terms
from mixed_r1_ray.policy import statistics as module
from mixed_r1_ray.policy.statistics import StepStatistics
from mixed_r1_ray.runtime.metric_names import check_names
from mixed_r1_ray.types import TrainBatch


@dataclass
class Tokens:
    """The fields of a microbatch's tokens that statistics read."""

    prompt_ids: list[str]
    response_lengths: torch.Tensor
    rollout_logprobs: torch.Tensor
    advantages: torch.Tensor | None = None
    reference_logprobs: torch.Tensor | None = None


def add(
    statistics: StepStatistics,
    differences: list[list[float]],
    prompt_ids: list[str],
    kl: bool = True,
    correction: Correction | None = None,
) -> None:
    """One microbatch of one list of (trainer - engine) differences a response; every other number is a constant."""
    flat = torch.tensor([value for response in differences for value in response])
    tokens = Tokens(
        prompt_ids, torch.tensor([len(response) for response in differences]), torch.full_like(flat, -1.0)
    )
    terms = Terms(
        total=torch.tensor(math.nan),  # none of the metrics
        weights=torch.full_like(flat, 0.1),
        policy=TokenLoss(torch.full_like(flat, 3.0), torch.arange(len(flat)) % 2 == 0),
        kl=torch.full_like(flat, 0.5) if kl else None,
        correction=correction,
    )
    statistics.add(tokens, logprobs=flat - 1.0, entropy=torch.full_like(flat, 2.0), terms=terms)


def batch(num_tokens: int) -> TrainBatch:
    return TrainBatch(step=1, groups=(), num_samples=1, num_tokens=num_tokens)


def test_metrics_are_token_means_and_the_loss_keeps_its_own_weights():
    statistics = StepStatistics()
    add(statistics, [[0.0, 0.5], [-0.5]], ["a", "b"])
    add(statistics, [[0.0]], ["c"])
    assert statistics.metrics(batch(4)) == pytest.approx(
        {
            "loss/policy": 4 * 3.0 * 0.1,
            "entropy": 2.0,
            "clip/fraction": 3 / 4,
            "kl/reference": 0.5,
            "mismatch/logprob_abs_max": 0.5,
            "mismatch/kl": (math.exp(0.5) - 1.5 + math.exp(-0.5) - 0.5) / 4,
        }
    )


def test_without_a_reference_there_is_no_kl_to_report():
    statistics = StepStatistics()
    add(statistics, [[0.0]], ["a"], kl=False)
    assert "kl/reference" not in statistics.metrics(batch(1))


def test_correction_is_reported_as_mean_weight_and_bounded_fraction_of_its_tokens():
    statistics = StepStatistics()
    first = Correction(torch.tensor([2.0, 0.5, 0.0]), torch.tensor([True, False, True]))
    add(statistics, [[0.0, 0.0, 0.0]], ["a"], correction=first)
    add(statistics, [[0.0]], ["b"], correction=Correction(torch.tensor([1.5]), torch.tensor([False])))
    metrics = statistics.metrics(batch(4))
    assert metrics["correction/weight_mean"] == pytest.approx(4.0 / 4)
    assert metrics["correction/bounded_fraction"] == pytest.approx(2 / 4)


def test_metrics_are_declared():
    statistics = StepStatistics()
    add(statistics, [[0.0]], ["a"], correction=Correction(torch.zeros(1), torch.ones(1)))
    metrics = statistics.metrics(batch(1))
    check_names(metrics)
    assert metrics["correction/weight_mean"] == 0.0  # everything masked is not the same as nothing corrected


def test_worst_mismatch_names_the_prompt_of_its_response():
    statistics = StepStatistics()
    add(statistics, [[0.0, 0.1], [-0.9, 0.0, 0.0], [0.2]], ["a", "b", "c"])
    add(statistics, [[0.3]], ["d"])
    assert (statistics.mismatch_abs_max, statistics.worst_prompt_id) == (pytest.approx(0.9), "b")


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_nan_counts_as_infinite_mismatch_whatever_comes_before_or_after(order):
    statistics = StepStatistics()
    microbatches = [([[0.0, math.nan], [5.0]], ["sick", "b"]), ([[0.7]], ["c"])]
    for number in order:
        add(statistics, *microbatches[number])
    assert statistics.mismatch_abs_max == math.inf
    assert statistics.worst_prompt_id == "sick"


def reduce_over(monkeypatch, ranks: list[StepStatistics]) -> list[StepStatistics]:
    """What each rank's `reduce` returns, with the collective replaced by a look at all ranks."""
    parts = [(rank.sums, rank.mismatch_abs_max, rank.worst_prompt_id, rank.has_reference) for rank in ranks]

    def all_gather_object(gathered, mine):
        assert any(mine is part or mine[0] is part[0] for part in parts)
        gathered[:] = parts

    monkeypatch.setattr(module.dist, "get_world_size", lambda: len(ranks))
    monkeypatch.setattr(module.dist, "all_gather_object", all_gather_object)
    return [rank.reduce() for rank in ranks]


def test_two_ranks_give_what_one_would(monkeypatch):
    alone, first, second = StepStatistics(), StepStatistics(), StepStatistics()
    microbatches = [([[0.1, 0.2]], ["a"]), ([[0.4], [0.0]], ["b", "c"])]
    for differences, prompt_ids in microbatches:
        add(alone, differences, prompt_ids)
    add(first, *microbatches[0])
    add(second, *microbatches[1])
    for reduced in reduce_over(monkeypatch, [first, second]):
        assert reduced.metrics(batch(4)) == pytest.approx(alone.metrics(batch(4)))
        assert reduced.worst_prompt_id == "b"


def test_nan_on_one_rank_reaches_all_and_an_idle_rank_adds_nothing(monkeypatch):
    sick, idle, fine = StepStatistics(), StepStatistics(), StepStatistics()
    add(sick, [[math.nan]], ["sick"], kl=False)
    add(fine, [[5.0]], ["fine"])
    for reduced in reduce_over(monkeypatch, [fine, idle, sick]):
        assert reduced.mismatch_abs_max == math.inf
        assert reduced.worst_prompt_id == "sick"
        assert reduced.has_reference
