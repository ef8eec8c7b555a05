"""The output head under ZeRO-3 on two ranks whose tokens make different numbers of chunks, against torch's gradients.

Heads of their own and heads that are the input embeddings, trained and frozen under adapters, with an entropy bonus and
with recomputed activations; in three updates, for DeepSpeed learns the order of its gathers in the first. The learning
rate is zero, so all three have the gradient of the model as it was loaded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as multiprocessing
from head_work import count_head_work
from safetensors.torch import load_file, save_file
from tied_embeddings import tie_embeddings

from mixed_r1_ray.config import AlgoConfig, Config, LearnerConfig, ModelConfig
from mixed_r1_ray.policy.loading import load_policy
from mixed_r1_ray.policy.lora import add_lora
from mixed_r1_ray.types import PromptInputs

pytestmark = pytest.mark.slow
LENGTHS = [[3, 2], [7, 1, 9]]  # of the responses of each rank
ROWS_A_CHUNK, UPDATES, LORA = 2, 3, dict(lora_rank=4, lora_alpha=8.0, freeze="vision+projector")
CASES = {
    "own head": ("internvl", {}),
    "tied head, recomputed activations": ("tied", dict(gradient_checkpointing=True)),
    "frozen head": ("internvl", LORA),
}


@dataclass
class Share:
    """What one rank computes on."""

    prompt: PromptInputs
    responses: list[np.ndarray]

    @property
    def weights(self) -> torch.Tensor:
        """Of the tokens in the loss: each other."""
        return torch.linspace(-1.0, 2.0, sum(map(len, self.responses)))


def loss_of(logprobs: torch.Tensor, entropy: torch.Tensor, share: Share) -> torch.Tensor:
    return (logprobs * share.weights).sum() + (entropy * share.weights.square()).sum()


def work(rank: int, config: Config, shares: list[Share], folder: Path) -> None:
    """One rank as a process: leaves the gradients of each update, and what the head had to do for them."""
    from deepspeed.utils import safe_get_full_grad

    from mixed_r1_ray.policy.learner import PolicyLearner, Rendezvous

    learner = PolicyLearner(config, Rendezvous(f"file://{folder}/rendezvous", rank, 2))
    counts, share = count_head_work(learner, ROWS_A_CHUNK), shares[rank]
    for update in range(UPDATES):
        logprobs, entropy = learner.engine(learner.policy.pack([share.prompt], [share.responses]))
        learner.engine.set_gradient_accumulation_boundary(True)
        learner.engine.backward(loss_of(logprobs, entropy, share) * 2)  # DeepSpeed averages over ranks
        trained = {name: p for name, p in learner.policy.model.named_parameters() if p.requires_grad}
        gradients = {name: safe_get_full_grad(parameter).cpu() for name, parameter in trained.items()}
        learner.engine.step()
        if rank == 0:
            save_file(gradients, folder / f"update{update}.safetensors")
    (folder / f"head{rank}.json").write_text(json.dumps(counts))


def plain_gradients(config: Config, shares: list[Share]) -> dict[str, torch.Tensor]:
    """Of the model without ZeRO, by the whole matrix of scores."""
    learner = config.learner
    policy = load_policy(config.model, config.rollout.temperature, learner.freeze).eval()
    if learner.lora_rank:
        add_lora(policy.model, learner.lora_rank, learner.lora_alpha, config.run.seed)

    def all_at_once(hidden, targets, banned, temperature, entropy_gradient):
        scores = policy.model.lm_head(hidden)
        scores = scores - torch.zeros(scores.shape[1]).index_fill(0, torch.tensor(banned), 100.0)
        logprobs = (scores / temperature).log_softmax(1)
        return logprobs[torch.arange(len(targets)), targets], -(logprobs.exp() * logprobs).sum(1)

    policy.token_logprobs.forward = all_at_once
    for share in shares:
        loss_of(*policy(policy.pack([share.prompt], [share.responses])), share).backward()
    return {name: p.grad for name, p in policy.model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_torchs_own_and_each_pass_gathers_once(tiny_checkpoints, tmp_path, case):
    name, learner = CASES[case]
    if name == "tied":
        tie_embeddings(tiny_checkpoints["qwen2_5_vl"], str(tmp_path / "tied"))
    config = Config(
        model=ModelConfig(path=tiny_checkpoints.get(name, str(tmp_path / name))),
        learner=LearnerConfig(learning_rate=0.0, num_workers=2, max_grad_norm=1e9, **learner),
        algo=AlgoConfig(entropy_coef=0.01),
    )
    shares = make_shares(config)
    multiprocessing.spawn(work, (config, shares, tmp_path), nprocs=2)
    expected = plain_gradients(config, shares)
    for update in range(UPDATES):
        gradients = load_file(tmp_path / f"update{update}.safetensors")
        assert gradients.keys() == expected.keys()
        for parameter, gradient in expected.items():
            scale = max(1.0, float(gradient.abs().max()))
            torch.testing.assert_close(
                gradients[parameter], gradient, atol=2e-5 * scale, rtol=1e-4, msg=lambda m, p=parameter: f"{p}: {m}"
            )
    one, two = (json.loads((tmp_path / f"head{rank}.json").read_text()) for rank in range(2))
    assert one["passes"] == two["passes"] == 2 * UPDATES
    assert (one["chunks"], two["chunks"]) == (2 * UPDATES * 3, 2 * UPDATES * 9)
    assert one["gathers"] == two["gathers"] == 3 * UPDATES  # before a backward, once an output that has a gradient


def make_shares(config: Config) -> list[Share]:
    adapter, random = load_policy(config.model, 1.0).adapter, np.random.default_rng(0)
    ordinary = sorted(set(range(len(adapter.tokenizer))) - set(adapter.banned_token_ids))
    shares = []
    for lengths in LENGTHS:
        picture = random.integers(0, 255, (112, 112, 3), dtype=np.uint8)
        prompt = adapter.encode(adapter.prompt_text("Where is the red circle?", 1), [picture])
        shares.append(Share(prompt, [random.choice(ordinary, length).astype(np.int32) for length in lengths]))
    return shares
