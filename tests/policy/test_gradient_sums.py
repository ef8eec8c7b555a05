"""Gradients of microbatches and of ranks are added in float32: the sum's error does not grow with their number."""

from __future__ import annotations

import pytest
import torch
from real_learners import found_in_learners, packed_group

from mixed_r1_ray.config import Config, LearnerConfig, ModelConfig

MICROBATCHES = 8  # of each of two ranks
RANKS = 2


def sums_and_parts(learner) -> tuple[dict, dict]:
    """The gradient of all microbatches in one go, and the sum in float64 of those of each microbatch of each rank."""
    together = gradient(learner, range(MICROBATCHES), range(RANKS))
    parts = [gradient(learner, [number], [rank]) for number in range(MICROBATCHES) for rank in range(RANKS)]
    return together, {name: sum(part[name].double() for part in parts) for name in together}


def gradient(learner, microbatches, live_ranks) -> dict[str, torch.Tensor]:
    """As `_accumulate` makes it; ranks that are not live weigh nothing."""
    from deepspeed.utils import safe_get_full_grad

    for number in microbatches:
        packed = packed_group(learner.policy, responses=2, length=8 + number + 20 * learner.rank, pictures=0)
        logprobs, _ = learner.engine(packed)
        learner.engine.set_gradient_accumulation_boundary(number == microbatches[-1])
        learner.engine.backward(logprobs.mean() * float(learner.rank in live_ranks))
    parameters = [(name, p) for name, p in learner.policy.model.named_parameters() if p.requires_grad]
    found = {name: safe_get_full_grad(parameter).clone() for name, parameter in parameters}
    learner.engine.step()  # at a learning rate of zero
    return found


@pytest.mark.parametrize("offload", ["none", pytest.param("optimizer", marks=pytest.mark.slow)])
def test_a_bfloat16_learner_adds_as_float32_does(tiny_checkpoints, tmp_path, offload):
    learner = LearnerConfig(learning_rate=0.0, freeze="vision+projector", offload=offload, num_workers=RANKS)
    config = Config(model=ModelConfig(path=tiny_checkpoints["internvl"], dtype="bfloat16"), learner=learner)
    together, parts = found_in_learners({"bf16": config}, sums_and_parts, tmp_path, num_ranks=RANKS)["bf16"]
    assert len(together) > 40
    for name, exact in parts.items():
        difference = float((together[name].double() - exact).norm() / exact.norm().clamp(min=1e-12))
        assert difference <= 1e-6, (name, difference)  # in bfloat16 every addition is off by up to 4e-3
