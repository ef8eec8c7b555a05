"""All that a policy computes on lies on its device, and what leaves it comes back: on a device that stands apart."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from apart_device import ApartTensor, apart_device, move
from native_layouts import picture_bytes

from mixed_r1_ray.algo.objective import Objective
from mixed_r1_ray.config import AlgoConfig, Config, GuardConfig, LearnerConfig, ModelConfig, RolloutConfig
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.guard import Guard
from mixed_r1_ray.policy import tokens, warm_start
from mixed_r1_ray.policy.device import to_device, worker_device
from mixed_r1_ray.policy.learner import PolicyLearner
from mixed_r1_ray.policy.loading import load_policy
from mixed_r1_ray.policy.logprobs import PolicyModel
from mixed_r1_ray.policy.reading import read_logprobs
from mixed_r1_ray.policy.reference import ReferenceWorker
from mixed_r1_ray.types import Group, PromptInputs, Reading, Rollout, TrainBatch, TrainGroup

SIZES = [[(112, 112)], [], [(60, 100), (112, 40)]]  # of the pictures of each prompt
LENGTHS = [[3, 1, 6], [4, 4, 2], [1, 5, 5]]  # of the responses to it


@dataclass
class Case:
    prompts: list[PromptInputs]
    responses: list[list[np.ndarray]]

    @classmethod
    def of(cls, policy: PolicyModel) -> Case:
        random, adapter = np.random.default_rng(0), policy.adapter
        prompts = []
        for sizes in SIZES:
            pictures = [random.integers(0, 255, (height, width, 3), dtype=np.uint8) for width, height in sizes]
            prompts.append(adapter.encode(adapter.prompt_text("Where?", len(sizes)), pictures))
        ordinary = sorted(set(range(len(adapter.tokenizer))) - set(adapter.banned_token_ids))
        return cls(prompts, [[random.choice(ordinary, n).astype(np.int32) for n in lengths] for lengths in LENGTHS])

    def batch(self) -> TrainBatch:
        """With an engine and a reference that are some way off, and samples of two versions of the weights."""
        random, groups = np.random.default_rng(1), []
        for number, (prompt, row) in enumerate(zip(self.prompts, self.responses, strict=True)):
            rollouts = tuple(
                Rollout(i, ids, random.normal(-3, 1, len(ids)).astype(np.float32), np.arange(len(ids)) % 2, "", True)
                for i, ids in enumerate(row)
            )
            judged = tuple(random.normal(-3, 1, len(ids)).astype(np.float32) for ids in row)
            group = Group(f"p{number}", prompt.input_ids, rollouts)
            lengths, advantages = tuple(map(len, row)), (1.0, -0.5, None if number else 0.25)
            groups.append(TrainGroup(f"p{number}", len(prompt.input_ids), lengths, advantages, prompt, group, judged))
        return TrainBatch.of(2, groups)


def fresh(path: str) -> PolicyModel:
    torch.manual_seed(0)
    return load_policy(ModelConfig(path=path), 0.8).eval()


def gradients(policy: PolicyModel) -> dict[str, torch.Tensor]:
    found = {name: p.grad for name, p in policy.model.named_parameters() if p.grad is not None}
    return {name: getattr(gradient, "inside", gradient) for name, gradient in found.items()}


def assert_alike(there: dict[str, torch.Tensor], here: dict[str, torch.Tensor]) -> None:
    assert there.keys() == here.keys()
    for name, gradient in here.items():
        scale = max(1.0, float(gradient.abs().max()))
        torch.testing.assert_close(
            there[name], gradient, atol=1e-5 * scale, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_the_device_stands_apart():
    """What follows could not fail otherwise."""
    with apart_device() as device:
        there, here = torch.arange(3.0, device=device), torch.arange(3.0)
        assert (there * 2 + torch.tensor(1.0)).tolist() == [1.0, 3.0, 5.0]
        with pytest.raises(AssertionError, match="both sides"):
            there + here
        with pytest.raises(AssertionError, match="both sides"):
            torch.stack([there[0], here[0]])
        with pytest.raises(RuntimeError):
            there.numpy()
        assert (there.cpu() + here).tolist() == [0.0, 2.0, 4.0]


def test_forward_and_backward_find_everything_there(checkpoint):
    policy = fresh(checkpoint)
    case = Case.of(policy)

    def run() -> torch.Tensor:
        logprobs, entropy = policy(policy.pack(case.prompts, case.responses))
        (logprobs.sum() + entropy.sum()).backward()
        return torch.cat([logprobs.detach().cpu(), entropy.detach().cpu()])

    policy.entropy_gradient = True
    here, expected = run(), gradients(policy)
    with apart_device() as device:
        move(policy).zero_grad()
        assert policy.device == device
        torch.testing.assert_close(run(), here, atol=1e-5, rtol=0)
        assert_alike(gradients(policy), expected)


@pytest.mark.parametrize("sizes", [[], [(112, 112)]])
def test_prompts_without_a_picture_and_one_alone(checkpoint, sizes):
    policy = fresh(checkpoint)
    images = [np.zeros((height, width, 3), np.uint8) for width, height in sizes]
    prompt = policy.adapter.encode(policy.adapter.prompt_text("Where?", len(sizes)), images)
    with torch.no_grad(), apart_device():
        here = policy(policy.pack([prompt], [[np.array([20, 21], np.int32)]]))[0]
        there = move(policy)(policy.pack([prompt], [[np.array([20, 21], np.int32)]]))[0]
        assert isinstance(there, ApartTensor) and not isinstance(here, ApartTensor)
        torch.testing.assert_close(there.cpu(), here, atol=1e-5, rtol=0)


READINGS = [("internvl", {}), ("internvl", {"shift": 1, "ban": False}), ("qwen2_5_vl", {"own_positions": True})]


@pytest.mark.parametrize(("family", "reading"), READINGS, ids=str)
def test_readings_come_back(tiny_checkpoints, family, reading):
    policy = fresh(tiny_checkpoints[family])
    case = Case.of(policy)
    with torch.no_grad(), apart_device():
        here = read_logprobs(policy, policy, case.prompts, case.responses, Reading(**reading))
        move(policy)
        there = read_logprobs(policy, policy, case.prompts, case.responses, Reading(**reading))
    assert all(type(part) is np.ndarray and part.dtype == np.float32 for part in there)
    np.testing.assert_allclose(np.concatenate(there), np.concatenate(here), atol=1e-5)


def test_a_bfloat16_policys_answers_are_float32_arrays(checkpoint):
    """NumPy has no bfloat16."""
    policy = load_policy(ModelConfig(path=checkpoint, dtype="bfloat16"), 0.8).eval()
    case = Case.of(policy)
    with torch.no_grad(), apart_device():
        here = read_logprobs(policy, policy, case.prompts, case.responses, Reading())
        move(policy)
        there = read_logprobs(policy, policy, case.prompts, case.responses, Reading())
    assert all(part.dtype == np.float32 for part in there)
    np.testing.assert_allclose(np.concatenate(there), np.concatenate(here), atol=0.1)


def test_the_references_answers_come_back(checkpoint):
    worker = object.__new__(ReferenceWorker.__ray_metadata__.modified_class)
    worker.policy = fresh(checkpoint).requires_grad_(False)
    case = Case.of(worker.policy)
    rollouts = tuple(Rollout(i, ids, None, None, "", True) for i, ids in enumerate(case.responses[0]))
    group = Group("p0", case.prompts[0].input_ids, rollouts)
    _, here = worker.logprobs(case.prompts[0], group)
    with apart_device():
        move(worker.policy)
        _, there = worker.logprobs(case.prompts[0], group)
    assert [part.shape for part in there] == [(length,) for length in LENGTHS[0]]
    np.testing.assert_allclose(np.concatenate(there), np.concatenate(here), atol=1e-5)


class PlainEngine:
    """What a learner asks of DeepSpeed's engine in an update, without ZeRO."""

    def __init__(self, policy: PolicyModel):
        self.module = policy

    def __call__(self, packed):
        return self.module(packed)

    def set_gradient_accumulation_boundary(self, is_boundary: bool) -> None:
        pass

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()


def learner_of(policy: PolicyModel, algo: AlgoConfig) -> PolicyLearner:
    learner = object.__new__(PolicyLearner)
    learner.config = Config(
        rollout=RolloutConfig(max_new_tokens=16),
        algo=algo,
        guard=GuardConfig(max_logprob_mismatch=100.0),
        learner=LearnerConfig(microbatch_tokens=100),
    )
    learner.rank, learner.num_ranks, learner.device = 0, 1, policy.device
    learner.engine, learner.policy, learner.adapter = PlainEngine(policy), policy, policy.adapter
    learner.objective, learner.guard = Objective(algo), Guard.from_config(learner.config)
    policy.entropy_gradient = algo.entropy_coef > 0
    return learner


ALGORITHMS = {
    "grpo": dict(rollout_correction="token", entropy_coef=0.01),
    "dr_grpo": dict(old_logprobs="rollout", kl_estimator="k1", clip_ratio_c=3.0),
    "gspo": dict(rollout_correction="sequence", kl_estimator="k2", use_bias_correction_kl=True),
}


@pytest.mark.parametrize("loss", ALGORITHMS)
def test_an_update_finds_everything_there_and_its_metrics_come_back(tiny_checkpoints, monkeypatch, loss):
    monkeypatch.setattr(tokens, "ray", SimpleNamespace(get=list))  # references are the things themselves here
    monkeypatch.setattr(torch.distributed, "all_gather_object", lambda shares, own: shares.__setitem__(0, own))
    policy, algo = fresh(tiny_checkpoints["internvl"]), AlgoConfig(loss=loss, max_staleness=2, **ALGORITHMS[loss])
    batch = Case.of(policy).batch()

    def update() -> dict[str, float]:
        learner = learner_of(policy, algo)
        old, _ = learner._old_logprobs(batch)
        assert all(type(part) is torch.Tensor and part.device.type == "cpu" for part in old.values())
        statistics, mismatch = learner._accumulate(batch, old)
        assert type(statistics.sums) is torch.Tensor and type(mismatch.sizes[0]) is np.ndarray
        return statistics.metrics(batch) | mismatch.metrics() | {"worst": float(mismatch.worst.prompt_id[1:])}

    here, expected = update(), gradients(policy)
    with apart_device():
        move(policy).zero_grad()
        assert update() == pytest.approx(here, rel=1e-4, abs=1e-6)
        assert_alike(gradients(policy), expected)


def test_a_warm_start_finds_everything_there(checkpoint):
    policy = fresh(checkpoint)
    questions = (np.array([20, 21, 22, 23]), 2), (np.array([24, 25]), 1)
    picture = warm_start._PictureRow(picture_bytes(112, 112), questions)
    here = warm_start._negative_log_likelihood(policy, [picture]).item()
    with apart_device():
        there = warm_start._negative_log_likelihood(move(policy), [picture])
        there.backward()
        assert there.item() == pytest.approx(here, abs=1e-4)


def test_all_tensors_of_a_batch_are_moved_and_all_else_stays(checkpoint):
    policy = fresh(checkpoint)
    case = Case.of(policy)
    packed, names = policy.pack(case.prompts, case.responses), ("adapters", 3, None)
    with apart_device() as device:
        moved, same = to_device((packed, names), device)
        assert same == names and type(moved) is type(packed)
        held = [moved.input_ids, moved.position_ids, moved.source_index, moved.target_ids, moved.response_lengths]
        held += moved.pixels.values()
        for segments in (moved.attention.own, moved.attention.prompts):
            held += [segments.query_starts, segments.key_starts]
            for places in (places for bucket in segments.buckets for places in (bucket.queries, bucket.keys)):
                held += [places.rows, places.real, places.tokens]
        assert all(isinstance(tensor, ApartTensor) for tensor in held)
        assert torch.equal(to_device(moved, torch.device("cpu")).input_ids, packed.input_ids)


class Recorded(torch.Tensor):
    """Says how it was asked to move."""

    def pin_memory(self):
        self.asked.append("pinned")
        return self

    def to(self, device, non_blocking=False):
        self.asked.append((device.type, non_blocking))
        return self


@pytest.mark.parametrize(("device", "asked"), [("cuda:0", ["pinned", ("cuda", True)]), ("cpu", [("cpu", False)])])
def test_copies_to_a_gpu_are_pinned_and_not_waited_for(device, asked):
    tensor = torch.zeros(2).as_subclass(Recorded)
    tensor.asked = []
    to_device({"tensor": tensor}, torch.device(device))
    assert tensor.asked == asked


def test_a_worker_without_a_gpu_of_its_own_stays_on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # its node's
    assert worker_device("learner", 0) == torch.device("cpu")
    assert worker_device("learner", 1) == torch.device("cuda", 0)


def test_a_gpu_that_torch_does_not_find_is_reported_with_the_key(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(UserError, match=r"reference\.gpus_per_worker=1.*CUDA_VISIBLE_DEVICES=3"):
        worker_device("reference", 1)
