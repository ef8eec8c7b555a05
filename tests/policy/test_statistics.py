"""A step's statistics: sums over microbatches and ranks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from mixed_r1_ray.algo.correction import Correction
from mixed_r1_ray.algo.losses import TokenLoss
from mixed_r1_ray.algo.objective import Terms
from mixed_r1_ray.guard import Spread, TokenDifference
from mixed_r1_ray.policy import statistics as module
from mixed_r1_ray.policy.statistics import Mismatch, UpdateStatistics
from mixed_r1_ray.runtime.metric_names import check_names
from mixed_r1_ray.types import TrainBatch


@dataclass
class Tokens:
    """The fields of a microbatch's tokens that mismatch reads."""

    samples: list[tuple[str, int]]
    response_lengths: torch.Tensor
    rollout_logprobs: torch.Tensor
    weight_versions: torch.Tensor


def add(statistics: UpdateStatistics, moved: list[float], kl: bool = True, correction: Correction | None = None) -> None:
    """One microbatch of tokens that moved so far (policy - old policy); every other number is a constant."""
    flat = torch.tensor(moved)
    terms = Terms(
        total=torch.tensor(math.nan),  # none of the metrics
        weights=torch.full_like(flat, 0.1),
        policy=TokenLoss(torch.full_like(flat, 3.0), torch.arange(len(flat)) % 2 == 0),
        kl=torch.full_like(flat, 0.5) if kl else None,
        correction=correction,
    )
    statistics.add(flat - 1.0, torch.full_like(flat, -1.0), entropy=torch.full_like(flat, 2.0), terms=terms)


def differ(
    mismatch: Mismatch,
    differences: list[list[float]],
    prompt_ids: list[str],
    old: bool = False,
    engine: float = -1.0,
) -> None:
    """One microbatch of one list of (trainer - engine) differences a response; the trainer's weights are version 7."""
    flat = torch.tensor([value for response in differences for value in response])
    samples = [(prompt_id, sample) for sample, prompt_id in enumerate(prompt_ids)]
    lengths = torch.tensor([len(response) for response in differences])
    versions = torch.full((len(flat),), 6 if old else 7)
    mismatch.add(Tokens(samples, lengths, torch.full_like(flat, engine), versions), flat + engine, version=7)


def batch(num_tokens: int) -> TrainBatch:
    return TrainBatch(step=1, groups=(), num_samples=1, num_tokens=num_tokens)


def test_metrics_are_token_means_and_the_loss_keeps_its_own_weights():
    statistics = UpdateStatistics()
    add(statistics, [0.0, 0.5, -0.5])
    add(statistics, [0.0])
    assert statistics.metrics(batch(4)) == pytest.approx(
        {
            "loss/policy": 4 * 3.0 * 0.1,
            "entropy": 2.0,
            "clip/fraction": 3 / 4,
            "kl/reference": 0.5,
            "kl/old": (math.exp(0.5) - 1.5 + math.exp(-0.5) - 0.5) / 4,
        }
    )


def test_mismatch_is_told_by_its_largest_its_mean_a_quantile_and_as_a_divergence():
    mismatch = Mismatch()
    differ(mismatch, [[0.0, 0.5], [-0.5]], ["a", "b"])
    differ(mismatch, [[0.0]], ["c"])
    assert mismatch.metrics() == pytest.approx(
        {
            "mismatch/logprob_abs_max": 0.5,
            "mismatch/logprob_abs_mean": 0.25,
            "mismatch/logprob_abs_q999": 0.0,  # of so few tokens the smallest
            "mismatch/kl": (math.exp(0.5) - 1.5 + math.exp(-0.5) - 0.5) / 4,
        }
    )


def test_without_a_reference_there_is_no_kl_to_report():
    statistics = UpdateStatistics()
    add(statistics, [0.0], kl=False)
    assert "kl/reference" not in statistics.metrics(batch(1))


def test_correction_is_reported_as_mean_weight_and_bounded_fraction_of_its_tokens():
    statistics = UpdateStatistics()
    first = Correction(torch.tensor([2.0, 0.5, 0.0]), torch.tensor([True, False, True]))
    add(statistics, [0.0, 0.0, 0.0], correction=first)
    add(statistics, [0.0], correction=Correction(torch.tensor([1.5]), torch.tensor([False])))
    metrics = statistics.metrics(batch(4))
    assert metrics["correction/weight_mean"] == pytest.approx(4.0 / 4)
    assert metrics["correction/bounded_fraction"] == pytest.approx(2 / 4)


def test_metrics_are_declared():
    statistics, mismatch = UpdateStatistics(), Mismatch()
    add(statistics, [0.0], correction=Correction(torch.zeros(1), torch.ones(1)))
    differ(mismatch, [[0.0]], ["a"])
    metrics = statistics.metrics(batch(1))
    check_names(metrics | mismatch.metrics())
    assert metrics["correction/weight_mean"] == 0.0  # everything masked is not the same as nothing corrected


def test_worst_mismatch_names_the_prompt_of_its_response():
    mismatch = Mismatch()
    differ(mismatch, [[0.0, 0.1], [-0.9, 0.0, 0.0], [0.2]], ["a", "b", "c"])
    differ(mismatch, [[0.3]], ["d"])
    assert mismatch.worst == TokenDifference(pytest.approx(0.9), 4.0, "b", sample=1, position=0)


def test_worst_mismatch_names_sample_and_place_of_its_token():
    mismatch = Mismatch()
    differ(mismatch, [[0.0, 0.1], [0.0, 0.0, -0.9, 0.0], [0.2]], ["a", "b", "c"])
    assert (mismatch.worst.prompt_id, mismatch.worst.sample, mismatch.worst.position) == ("b", 1, 2)


def test_tokens_of_older_weights_are_measured_but_not_held_against_the_engine():
    mismatch = Mismatch()
    differ(mismatch, [[0.1]], ["new"])
    differ(mismatch, [[0.9]], ["old"], old=True)
    assert (mismatch.worst.size, mismatch.worst.prompt_id) == (pytest.approx(0.1), "new")
    assert (mismatch.spread().mean, mismatch.spread().quantile) == (pytest.approx(0.1), pytest.approx(0.1))
    assert mismatch.metrics()["mismatch/logprob_abs_max"] == pytest.approx(0.9)
    sick = Mismatch()
    differ(sick, [[math.nan]], ["old"], old=True)
    assert sick.metrics()["mismatch/logprob_abs_max"] == math.inf
    assert sick.spread() == Spread(0.0, 0.0, TokenDifference())


def test_worst_is_the_token_furthest_beyond_its_own_bound_not_the_largest_difference():
    mismatch = Mismatch()
    differ(mismatch, [[0.0, -0.6], [0.0]], ["unlikely", "a"], engine=-4.0)
    differ(mismatch, [[0.0], [0.0, -0.2]], ["b", "likely"], engine=-0.25)
    assert mismatch.worst == TokenDifference(pytest.approx(0.2), 1.0, "likely", sample=1, position=1)
    assert mismatch.metrics()["mismatch/logprob_abs_max"] == pytest.approx(0.6)
    differ(mismatch, [[-4.8]], ["beyond"], engine=-4.0)
    assert mismatch.worst == TokenDifference(pytest.approx(4.8), 16.0, "beyond")


def test_all_ranks_hold_the_same_token_against_its_bound(monkeypatch):
    unlikely, likely = Mismatch(), Mismatch()
    differ(unlikely, [[-0.6]], ["unlikely"], engine=-4.0)
    differ(likely, [[-0.2]], ["likely"], engine=-0.25)
    for ranks in ([unlikely, likely], [likely, unlikely]):
        first, second = (reduced.worst for reduced in reduce_over(monkeypatch, ranks))
        assert first == second == likely.worst


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_nan_counts_as_infinite_mismatch_whatever_comes_before_or_after(order):
    mismatch = Mismatch()
    microbatches = [([[0.0, math.nan], [5.0]], ["sick", "b"]), ([[0.7]], ["c"])]
    for number in order:
        differ(mismatch, *microbatches[number])
    assert mismatch.metrics()["mismatch/logprob_abs_max"] == mismatch.spread().mean == math.inf
    assert mismatch.worst.size == mismatch.worst.scaled == math.inf
    assert mismatch.worst.prompt_id == "sick"


def reduce_over(monkeypatch, ranks: list) -> list:
    """What each rank's `reduce` returns, with the collective replaced by a look at what all ranks send."""
    sent = []
    monkeypatch.setattr(module, "_gather", lambda part: sent.append(part) or [part])
    for rank in ranks:
        rank.reduce()
    everything = list(sent)
    monkeypatch.setattr(module, "_gather", lambda part: everything)
    return [rank.reduce() for rank in ranks]


def test_two_ranks_give_what_one_would(monkeypatch):
    alone, first, second = UpdateStatistics(), UpdateStatistics(), UpdateStatistics()
    for statistics, moved in ((first, [0.1, 0.2]), (second, [0.4, 0.0])):
        add(alone, moved)
        add(statistics, moved)
    for reduced in reduce_over(monkeypatch, [first, second]):
        assert reduced.metrics(batch(4)) == pytest.approx(alone.metrics(batch(4)))


def test_mismatch_of_two_ranks_is_what_one_would_find(monkeypatch):
    alone, first, second = Mismatch(), Mismatch(), Mismatch()
    microbatches = [([[0.1, 0.2]], ["a"]), ([[0.4], [0.0]], ["b", "c"])]
    for mismatch, (differences, prompt_ids) in zip((first, second), microbatches, strict=True):
        differ(alone, differences, prompt_ids)
        differ(mismatch, differences, prompt_ids)
    for reduced in reduce_over(monkeypatch, [first, second]):
        assert reduced.metrics() == pytest.approx(alone.metrics())
        assert reduced.worst == alone.worst and reduced.worst.prompt_id == "b"


def test_the_quantile_of_several_ranks_and_microbatches_is_that_of_all_their_tokens(monkeypatch):
    random = np.random.default_rng(0)
    first, second, everything = Mismatch(), Mismatch(), []
    for mismatch, size in ((first, 0.1), (first, 5.0), (second, 0.3)):
        values = random.normal(0, size, 20_000)
        everything.append(values)
        differ(mismatch, [values.tolist()], ["a"])
    differ(second, [50 * [30.0]], ["old"], old=True)
    found = np.abs(np.concatenate(everything))
    for reduced in reduce_over(monkeypatch, [first, second]):
        spread = reduced.spread()
        assert spread.mean == pytest.approx(found.mean())
        assert spread.quantile == pytest.approx(np.quantile(found, 0.999), rel=1e-3)
        assert reduced.metrics()["mismatch/logprob_abs_q999"] > 1.01 * spread.quantile  # older tokens are in it


def test_nan_on_one_rank_reaches_all_and_an_idle_rank_adds_nothing(monkeypatch):
    sick, idle, fine = Mismatch(), Mismatch(), Mismatch()
    differ(sick, [[math.nan]], ["sick"])
    differ(fine, [[5.0]], ["fine"])
    for reduced in reduce_over(monkeypatch, [fine, idle, sick]):
        assert reduced.metrics()["mismatch/logprob_abs_max"] == reduced.worst.size == math.inf
        assert (reduced.worst.prompt_id, sum(map(len, reduced.sizes))) == ("sick", 2)


def test_reference_on_one_rank_is_reported_on_all(monkeypatch):
    idle, fine = UpdateStatistics(), UpdateStatistics()
    add(fine, [0.0])
    assert all(reduced.has_reference for reduced in reduce_over(monkeypatch, [idle, fine]))
