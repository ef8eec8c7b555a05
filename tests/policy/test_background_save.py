"""Checkpoints written by threads of the ranks: what fails is named, and appears where somebody looks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.policy.background_save import BackgroundSave
from mixed_r1_ray.policy.state import TrainingSnapshot
from mixed_r1_ray.runtime.checkpoints import begin, newest_valid
from mixed_r1_ray.types import SaveRequest


def snapshot(rank: int, num_ranks: int = 2, describe=lambda folder: (folder / "config.json").write_text("{}")):
    share = {f"weight/{rank}": torch.full((3,), float(rank))}
    weights = {"w": torch.ones(2)} if rank == 0 else {}
    return TrainingSnapshot(rank, num_ranks, share, weights, describe)


def request(folder: Path, deadline_s: float = 30.0) -> SaveRequest:
    return SaveRequest(str(folder), {"step": 3}, files={}, keep=2, spare=None, deadline_s=deadline_s)


def test_two_ranks_write_one_checkpoint(tmp_path):
    folder = begin(tmp_path, 3)
    saves = [BackgroundSave(snapshot(rank), request(folder)) for rank in (1, 0)]
    for save in saves:
        save.wait(60)
    found, faults = newest_valid(tmp_path)
    assert (found.step, found.state, faults) == (3, {"step": 3}, [])
    shards = {path.name: load_file(path) for path in found.path.glob("optimizer-*")}
    assert shards["optimizer-00001-of-00002.safetensors"]["weight/1"].tolist() == [1.0] * 3
    assert len(shards) == 2 and (found.path / "policy" / "config.json").is_file()


def test_a_shard_that_cannot_be_written_names_rank_and_file(tmp_path):
    save = BackgroundSave(snapshot(1), request(tmp_path / "gone"))
    with pytest.raises(UserError, match=r"learner\[1\] could not write .*optimizer-00001-of-00002.safetensors"):
        save.wait(60)
    with pytest.raises(UserError, match=r"learner\[1\]"):  # and whoever goes on hears of it
        save.raise_failure()


def test_a_policy_file_that_cannot_be_written_is_named_and_nothing_is_committed(tmp_path):
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"learner\[0\] could not write .*policy: .*No space left"):
        BackgroundSave(snapshot(0, 1, full), request(begin(tmp_path, 3))).wait(60)
    assert newest_valid(tmp_path) == (None, [])


@pytest.mark.parametrize(("kind", "bad"), [("weight", torch.nan), ("exp_avg_sq", torch.inf), ("policy", -torch.inf)])
def test_what_is_not_finite_is_named_and_nothing_is_committed(tmp_path, kind, bad):
    broken = snapshot(0, 1)
    part = broken.weights if kind == "policy" else broken.share
    part[f"{kind}/layer"] = torch.tensor([1.0, bad, 2.0, bad])
    with pytest.raises(UserError, match=rf"learner\[0\]: {kind}/layer holds 2 numbers that are not finite"):
        BackgroundSave(broken, request(begin(tmp_path, 3))).wait(60)
    assert newest_valid(tmp_path) == (None, [])


def test_weights_whose_squares_overflow_are_refused(tmp_path):
    broken = snapshot(0, 1)
    broken.weights["layer"] = torch.tensor([1.0, -2e29, 1e17])
    with pytest.raises(UserError, match=r"layer holds 1 numbers of more than 1e\+18"):
        BackgroundSave(broken, request(begin(tmp_path, 3))).wait(60)
    assert newest_valid(tmp_path) == (None, [])


def test_large_moments_are_finite_though_their_sum_is_not(tmp_path):
    large = snapshot(0, 1)
    large.share.update({"exp_avg_sq/layer": torch.full((4,), 3e38), "exp_avg/empty": torch.zeros(0)})
    BackgroundSave(large, request(begin(tmp_path, 3))).wait(60)
    assert newest_valid(tmp_path)[0].step == 3


def test_a_rank_that_never_writes_is_named(tmp_path):
    save = BackgroundSave(snapshot(0), request(begin(tmp_path, 3), deadline_s=0.1))
    with pytest.raises(UserError, match="nothing from learner 1 of 2"):
        save.wait(60)
