"""Real learners whose numbers break: updates that are skipped, weights and moments that overflow, checkpoints of them.

Each case is its ranks' processes, which go through all of it and leave what they saw in a file.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.multiprocessing as multiprocessing

from mixed_r1_ray.config import AlgoConfig, Config, GuardConfig, LearnerConfig, ModelConfig, RolloutConfig
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.types import Group, Rollout, TrainBatch, TrainGroup

CASES = {  # dtype, offload, ranks
    "float32": ("float32", "none", 2),
    "float32 offload": ("float32", "optimizer", 1),
    "bfloat16": ("bfloat16", "none", 1),
    "bfloat16 offload": ("bfloat16", "optimizer", 2),
}
BY_DEFAULT = ("float32", "bfloat16 offload")  # the others are marked slow
RATE, WARMUP, STEPS = 1e-3, 1, 5
NAN, INFINITE = float("nan"), float("inf")  # nats by which a reference is off on one token


def configured(checkpoint: str, dtype: str, offload: str) -> Config:
    return Config(
        model=ModelConfig(path=checkpoint, dtype=dtype),
        rollout=RolloutConfig(max_new_tokens=16),
        algo=AlgoConfig(beta=0.04, kl_estimator="k2"),
        guard=GuardConfig(max_logprob_mismatch=100.0, max_mean_mismatch=100.0, max_quantile_mismatch=100.0),
        learner=LearnerConfig(
            learning_rate=RATE,
            warmup_steps=WARMUP,
            lr_scheduler="linear",
            schedule_steps=STEPS,
            offload=offload,
            microbatch_tokens=64,
            max_skipped_updates=2,
        ),
    )


def make_batch(adapter, step: int, reference: float = 0.0, pictures: int = 1) -> TrainBatch:
    """Four groups of two; `reference` is how far the reference is off on one token of one of them."""
    groups = []
    for number in range(4):
        images = [np.full((56, 56, 3), 40 * number, np.uint8)] * pictures
        inputs = adapter.encode(adapter.prompt_text("Where is the red circle?", pictures), images)
        tokens = [np.arange(3 + number, 9 + sample, dtype=np.int32) for sample in (0, 1)]
        engine = [np.full(len(one), -4.0, np.float32) for one in tokens]
        judged = [np.full(len(one), -4.0, np.float32) for one in tokens]
        judged[1][2] += reference if number == 1 else 0.0
        rollouts = tuple(
            Rollout(sample, one, logprobs, np.full(len(one), step - 1, np.int32), "", True)
            for sample, (one, logprobs) in enumerate(zip(tokens, engine, strict=True))
        )
        lengths = tuple(map(len, tokens))
        group = Group(f"p{number}", inputs.input_ids, rollouts)
        groups.append(
            TrainGroup(group.prompt_id, len(inputs.input_ids), lengths, (1.0, -1.0), inputs, group, tuple(judged))
        )
    return TrainBatch.of(step, groups)


class Rank:
    """One rank's learner and what the test wants of it."""

    def __init__(self, rank: int, num_ranks: int, config: Config, folder: Path):
        from mixed_r1_ray.policy import tokens
        from mixed_r1_ray.policy.learner import PolicyLearner, Rendezvous

        tokens.ray = SimpleNamespace(get=list)  # references are the things themselves here
        self.folder, self.rank = folder, rank
        self.learner = PolicyLearner(config, Rendezvous(f"file://{folder}/rendezvous", rank, num_ranks))

    def update(self, step: int, **batch) -> dict:
        return self.learner.update(make_batch(self.learner.adapter, step, **batch))

    def state(self) -> dict[str, torch.Tensor]:
        from mixed_r1_ray.policy.state import take_snapshot

        snapshot = take_snapshot(self.learner)
        return snapshot.share | {f"policy/{name}": weight for name, weight in snapshot.weights.items()}

    def save(self, name: str, change=lambda share: None) -> Path:
        """A checkpoint of now in which `change` has changed this rank's share, as an older version would write it."""
        from mixed_r1_ray.policy import state

        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        snapshot = state.take_snapshot(self.learner)
        change(snapshot.share)
        checked, state.first_broken = state.first_broken, lambda named: None
        try:
            snapshot.write(folder)
        finally:
            state.first_broken = checked
        torch.distributed.barrier()
        return folder

    def load(self, folder: Path) -> None:
        from mixed_r1_ray.policy.finite import check_loaded
        from mixed_r1_ray.policy.state import load_training_state

        load_training_state(self.learner, folder)
        check_loaded(self.learner, folder)

    def error_of(self, call, *arguments, **named) -> str:
        """What the call raises, a UserError, as text."""
        try:
            call(*arguments, **named)
        except UserError as error:
            return f"{type(error).__name__}: {error}"
        return "nothing"


def go_through(rank: int, num_ranks: int, config: Config, folder: Path) -> None:
    mine, seen = Rank(rank, num_ranks, config, folder), {}
    learner = mine.learner
    mine.update(2)
    good, before = mine.save("good"), mine.state()
    broken = mine.update(3, reference=NAN)
    after = mine.state()
    seen["changed by a skipped update"] = [name for name in before if not torch.equal(before[name], after[name])]
    seen["skipped"], seen["made"] = broken, mine.update(4, pictures=0)
    later = mine.state()
    mine.load(good)
    seen["made without it"] = mine.update(4, pictures=0)
    plain = mine.state()
    seen["apart"] = max(float((later[name].double() - plain[name].double()).abs().max()) for name in plain)
    seen["moved"] = max(float((later[name].double() - before[name].double()).abs().max()) for name in plain)
    mine.update(5, reference=NAN)
    seen["two in a row"] = mine.error_of(mine.update, 6, reference=INFINITE)

    mine.load(good)
    learner.config = replace(config, learner=replace(config.learner, learning_rate=1e30))
    seen["blown up"] = mine.error_of(mine.update, 3)
    blown_up = mine.save("blown_up")
    mine.load(good)
    learner.config = replace(config, learner=replace(config.learner, learning_rate=1e16))
    seen["useless"] = mine.error_of(mine.update, 3)
    useless = mine.save("useless")
    learner.config = config
    seen["blown up, loaded"] = mine.error_of(mine.load, blown_up)
    seen["useless, loaded"] = mine.error_of(mine.load, useless)

    def break_moment(share: dict) -> None:
        if rank == num_ranks - 1:
            next(piece for name, piece in share.items() if name.startswith("exp_avg_sq/"))[0] = torch.inf

    mine.load(good)
    seen["broken moment"] = mine.error_of(mine.load, mine.save("moment", break_moment))
    seen["left as it was"] = all(torch.equal(before[name], now) for name, now in mine.state().items())

    shard = learner.engine.optimizer.fp32_partitioned_groups_flat[0]
    moments = learner.engine.optimizer.optimizer.state[shard]
    if rank == num_ranks - 1:  # as gradients of 1e20 would, if they were not clipped
        moments["exp_avg_sq"][0] = torch.inf
    seen["moment at an update"] = mine.error_of(mine.update, 4)
    (folder / f"rank{rank}.json").write_text(json.dumps(seen))


@pytest.fixture(
    scope="module", params=[pytest.param(case, marks=() if case in BY_DEFAULT else pytest.mark.slow) for case in CASES]
)
def case(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def seen(case, tiny_checkpoints, tmp_path_factory) -> list[dict]:
    """By rank."""
    dtype, offload, num_ranks = CASES[case]
    folder = tmp_path_factory.mktemp(case.replace(" ", "_"))
    arguments = num_ranks, configured(tiny_checkpoints["internvl"], dtype, offload), folder
    multiprocessing.spawn(go_through, arguments, nprocs=num_ranks)
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(num_ranks)]


def test_an_update_whose_gradient_is_not_finite_changes_nothing_on_any_rank(seen):
    for rank in seen:
        assert rank["changed by a skipped update"] == []
        assert (rank["skipped"]["updates"], rank["skipped"]["updates/skipped"]) == (1, 1)


def test_the_update_after_it_is_the_one_without_it_learning_rate_included(seen):
    (rank, *_) = seen
    assert rank["apart"] <= 1e-7 and rank["moved"] > 1e-4
    assert rank["made"]["updates/skipped"] == rank["made without it"]["updates/skipped"] == 0
    second = RATE * (1 - (2 - 1 - WARMUP) / (STEPS - WARMUP))
    assert rank["made"]["learning_rate"] == rank["made without it"]["learning_rate"] == pytest.approx(second)
    assert rank["made"]["grad_norm"] == pytest.approx(rank["made without it"]["grad_norm"], rel=1e-6)


def test_too_many_in_a_row_end_the_run_on_every_rank_naming_the_key(seen):
    for rank in seen:
        assert rank["two in a row"].startswith("UserError: step 6: 2 updates in a row were skipped")
        assert "learner.max_skipped_updates 2" in rank["two in a row"]


@pytest.mark.parametrize(
    ("how", "said"), [("blown up", " numbers of more than 1e+18"), ("useless", "policy gives tokens no finite log-prob")]
)
def test_weights_that_are_finite_and_of_no_use_stop_the_step_and_are_not_loaded(seen, how, said):
    for rank in seen:
        assert rank[how].startswith("UserError: step 3: after an update with learning rate ")
        assert said in rank[how] and "learner.learning_rate" in rank[how]
        assert rank[f"{how}, loaded"].startswith("Unusable: checkpoint ") and said in rank[f"{how}, loaded"]


def test_a_checkpoint_with_a_broken_moment_is_named_before_anything_is_changed(seen):
    for rank in seen:
        assert rank["broken moment"].startswith("Unusable: checkpoint ")
        assert "exp_avg_sq/" in rank["broken moment"] and "holds 1 numbers" in rank["broken moment"]
        assert rank["left as it was"]


def test_what_breaks_on_one_rank_stops_all_of_them_by_name(seen):
    last = len(seen) - 1
    for rank in seen:
        assert "exp_avg_sq/" in rank["moment at an update"] and f"(rank {last})" in rank["moment at an update"]
