"""Several optimizer steps on a batch, by DeepSpeed on one and two ranks, against a plain loop in float64.

Two ranks read the output head two tokens at a time and recompute layers, one rank neither.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.multiprocessing as multiprocessing
from head_work import count_head_work
from safetensors.torch import load_file, save_file

from mixed_r1_ray.config import AlgoConfig, Config, GuardConfig, LearnerConfig, ModelConfig, RolloutConfig
from mixed_r1_ray.policy.loading import load_policy
from mixed_r1_ray.policy.minibatches import cut_minibatches
from mixed_r1_ray.types import Group, PromptInputs, Rollout, TrainBatch, TrainGroup

LENGTHS = [[3, 7, 2], [5, 4], [2, 6], [8, 1, 3]]  # of the responses of four groups
ADVANTAGES = [[1.0, -0.8, 0.3], [0.7, None], [-1.1, 0.9], [-0.5, 1.2, -0.4]]
PICTURES = [1, 0, 2, 1]
LEARNING_RATE, WARMUP, MAX_NORM = 3e-4, 3, 0.5
ROWS_A_CHUNK = 2  # of two ranks
CASES = {
    "trainer": dict(rollout_correction="token", rollout_correction_max=1.1),
    "rollout": dict(old_logprobs="rollout"),
}


def configured(checkpoint: str, case: str) -> Config:
    return Config(
        model=ModelConfig(path=checkpoint),
        rollout=RolloutConfig(max_new_tokens=16),
        algo=AlgoConfig(num_minibatches=2, num_epochs=2, clip_ratio_low=0.01, clip_ratio_high=0.01, **CASES[case]),
        guard=GuardConfig(max_logprob_mismatch=1.0, max_initial_kl=1.0),
        learner=LearnerConfig(
            learning_rate=LEARNING_RATE, warmup_steps=WARMUP, max_grad_norm=MAX_NORM, microbatch_tokens=100
        ),
    )


@dataclass
class Reference:
    """The model in float64, one plain forward a sample."""

    checkpoint: str

    def __post_init__(self):
        policy = load_policy(ModelConfig(path=self.checkpoint), 1.0).eval()
        self.model, self.adapter = policy.model.double(), policy.adapter

    def logprobs(self, prompt: PromptInputs, response: np.ndarray) -> torch.Tensor:
        input_ids = torch.tensor([[*prompt.input_ids.tolist(), *response.tolist()]])
        pixels = {name: torch.from_numpy(array).double() for name, array in prompt.pixels.items()}
        attention = torch.ones_like(input_ids)
        logits = self.model(input_ids=input_ids, attention_mask=attention, use_cache=False, **pixels).logits[0]
        logits[:, list(self.adapter.banned_token_ids)] -= 100.0
        rows = logits[len(prompt.input_ids) - 1 : -1].log_softmax(-1)
        return rows[torch.arange(len(response)), torch.from_numpy(response).long()]


def make_batch(reference: Reference) -> TrainBatch:
    """Groups with pictures and without, a sample without a reward, and an engine that is a little off."""
    random = np.random.default_rng(0)
    adapter = reference.adapter
    ordinary = sorted(set(range(len(adapter.tokenizer))) - set(adapter.banned_token_ids))
    groups = []
    for number, (lengths, advantages) in enumerate(zip(LENGTHS, ADVANTAGES, strict=True)):
        pictures = [random.integers(0, 255, (112, 112, 3), dtype=np.uint8) for _ in range(PICTURES[number])]
        inputs = adapter.encode(adapter.prompt_text("Where is the red circle?", len(pictures)), pictures)
        rollouts, judged = [], []
        for sample, length in enumerate(lengths):
            tokens = random.choice(ordinary, length).astype(np.int32)
            with torch.no_grad():
                logprobs = reference.logprobs(inputs, tokens).numpy()
            engine = (logprobs + 0.1 * random.standard_normal(length)).astype(np.float32)
            judged.append((logprobs + 0.3 * random.standard_normal(length)).astype(np.float32))
            rollouts.append(Rollout(sample, tokens, engine, np.zeros(length, np.int32), "", True))
        group = Group(f"p{number}", inputs.input_ids, tuple(rollouts))
        num_tokens = len(inputs.input_ids)
        groups.append(
            TrainGroup(f"p{number}", num_tokens, tuple(lengths), tuple(advantages), inputs, group, tuple(judged))
        )
    return TrainBatch.of(1, groups)


def plain_training(reference: Reference, batch: TrainBatch, algo: AlgoConfig) -> tuple[dict, list[float], float]:
    """Two epochs over two minibatches as one would write them down: parameters, gradient norms, clipped fraction."""
    parameters = dict(reference.model.named_parameters())
    optimizer = torch.optim.AdamW(parameters.values(), lr=1.0, betas=(0.9, 0.95), weight_decay=0.0)
    old = {}
    for group in batch.groups:
        for rollout in group.group.rollouts:
            with torch.no_grad():
                old[group.prompt_id, rollout.sample_index] = reference.logprobs(group.inputs, rollout.token_ids)
    norms, clipped = [], []
    for number, minibatch in enumerate(cut_minibatches(batch, 2, 2, seed=0)):
        optimizer.zero_grad()
        num_clipped = 0
        for group in minibatch.groups:
            for rollout, advantage in zip(group.group.rollouts, group.advantages, strict=True):
                if advantage is None:
                    continue
                engine = torch.from_numpy(rollout.logprobs).double()
                judged = torch.from_numpy(group.reference_logprobs[rollout.sample_index]).double()
                before = old[group.prompt_id, rollout.sample_index]
                now = reference.logprobs(group.inputs, rollout.token_ids)
                ratio = (now - (engine if algo.old_logprobs == "rollout" else before)).exp()
                bound = ratio.clamp(1 - algo.clip_ratio_low, 1 + algo.clip_ratio_high)
                policy = -torch.minimum(ratio * advantage, bound * advantage)
                num_clipped += int((bound * advantage < ratio * advantage).sum())
                if algo.rollout_correction == "token":
                    policy = policy * (before - engine).exp().clamp(max=algo.rollout_correction_max)
                kl = (judged - now).exp() - (judged - now) - 1
                (policy + algo.beta * kl).mean().div(minibatch.num_samples).backward()
        norm = math.sqrt(sum(float((p.grad**2).sum()) for p in parameters.values() if p.grad is not None))
        for parameter in parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad /= max(1.0, norm / MAX_NORM)
        for settings in optimizer.param_groups:
            settings["lr"] = LEARNING_RATE * min(1.0, (number + 1) / WARMUP)
        optimizer.step()
        norms.append(norm)
        clipped.append(num_clipped / minibatch.num_tokens)
    return {name: parameter.detach() for name, parameter in parameters.items()}, norms, float(np.mean(clipped))


def learn(rank: int, num_ranks: int, config: Config, batch: TrainBatch, folder: Path) -> None:
    """One rank as a process: updates once and leaves its weights and metrics in `folder`."""
    from mixed_r1_ray.policy import tokens
    from mixed_r1_ray.policy.learner import PolicyLearner, Rendezvous

    tokens.ray = SimpleNamespace(get=list)  # references are the things themselves here
    config = replace(config, learner=replace(config.learner, gradient_checkpointing=num_ranks > 1))
    learner = PolicyLearner(config, Rendezvous(f"file://{folder}/rendezvous", rank, num_ranks))
    counts = count_head_work(learner, rows_a_chunk=ROWS_A_CHUNK if num_ranks > 1 else None)
    metrics = learner.update(batch)
    weights = learner.outgoing.gathered()
    (folder / f"head{rank}.json").write_text(json.dumps(counts))
    if rank == 0:
        save_file(weights, folder / "weights.safetensors")
        told = metrics | {"optimizer_steps": learner.optimizer_steps()}
        (folder / "metrics.json").write_text(json.dumps(told))


@pytest.fixture(scope="module")
def trained(tiny_checkpoints, tmp_path_factory) -> dict:
    """(weights, metrics) by case and number of ranks, and the plain loop's numbers by case."""
    checkpoint = tiny_checkpoints["internvl"]
    results, runs = {}, []
    for case in CASES:
        batch = make_batch(Reference(checkpoint))
        for num_ranks in (1, 2) if case == "trainer" else (1,):
            folder = tmp_path_factory.mktemp(f"{case}{num_ranks}")
            arguments = num_ranks, configured(checkpoint, case), batch, folder
            runs.append((multiprocessing.spawn(learn, arguments, nprocs=num_ranks, join=False), case, num_ranks, folder))
    for case in CASES:
        results[case, "plain"] = plain_training(Reference(checkpoint), batch, configured(checkpoint, case).algo)
    for processes, case, num_ranks, folder in runs:
        while not processes.join():
            pass
        metrics = json.loads((folder / "metrics.json").read_text())
        results[case, num_ranks] = load_file(folder / "weights.safetensors"), metrics
        results[case, num_ranks, "head"] = [json.loads(file.read_text()) for file in sorted(folder.glob("head*.json"))]
    return results


def farthest(ours: dict, theirs: dict) -> float:
    assert ours.keys() == theirs.keys()
    return max(float((ours[name].double() - theirs[name].double()).abs().max()) for name in ours)


@pytest.mark.parametrize("case", CASES)
def test_parameters_are_those_of_a_plain_double_loop_in_float64(trained, case, tiny_checkpoints):
    weights, _ = trained[case, 1]
    plain, _, _ = trained[case, "plain"]
    before = {name: part.detach() for name, part in Reference(tiny_checkpoints["internvl"]).model.named_parameters()}
    assert farthest(weights, before) > 2 * LEARNING_RATE
    assert farthest(weights, plain) <= 1e-5


def test_one_and_two_ranks_end_at_the_same_parameters(trained):
    assert farthest(trained["trainer", 1][0], trained["trainer", 2][0]) <= 1e-5
    one, two = trained["trainer", 1][1], trained["trainer", 2][1]
    assert one == pytest.approx(two, rel=1e-4, abs=1e-6)


def test_ranks_with_different_numbers_of_chunks_gather_the_head_equally_often(trained):
    """Each gather is a collective: one a chunk would leave the rank with more of them waiting for ever."""
    one, two = trained["trainer", 2, "head"]
    assert one["chunks"] != two["chunks"]
    assert one["gathers"] == two["gathers"] == one["passes"] == two["passes"]
    assert min(one["chunks"], two["chunks"]) > 2 * one["passes"]


def test_what_counts_as_old_matters_here(trained):
    assert farthest(trained["trainer", "plain"][0], trained["rollout", "plain"][0]) > 3e-5


@pytest.mark.parametrize("case", CASES)
def test_metrics_are_means_over_the_updates_and_the_counter_counts_each(trained, case):
    _, metrics = trained[case, 1]
    _, norms, clipped = trained[case, "plain"]
    assert metrics["updates"] == metrics["optimizer_steps"] == len(norms) == 4
    assert metrics["grad_norm"] == pytest.approx(np.mean(norms), rel=1e-4)
    assert metrics["clip/fraction"] == pytest.approx(clipped, abs=1e-6) and clipped > 0
    rates = [LEARNING_RATE * min(1.0, number / WARMUP) for number in (1, 2, 3, 4)]
    assert metrics["learning_rate"] == pytest.approx(np.mean(rates))
    assert metrics["kl/old"] > 1e-5


def test_mismatch_is_measured_on_the_whole_batch_before_the_first_update(trained):
    assert 0.2 < trained["trainer", 1][1]["mismatch/logprob_abs_max"] < 0.4  # the engine is off by 0.1 (one sigma)
