"""A learner draws nothing: a checkpoint needs no generator's state to be continued exactly."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn

from mixed_r1_ray.config import ModelConfig
from mixed_r1_ray.policy.loading import load_policy
from mixed_r1_ray.policy.packing import pack


def generators() -> tuple:
    return torch.get_rng_state().tolist(), random.getstate(), repr(np.random.get_state())


def test_forward_backward_and_update_leave_every_generator_where_it_was(checkpoint):
    policy = load_policy(ModelConfig(path=checkpoint), temperature=1.0).eval()
    picture = np.zeros((112, 112, 3), dtype=np.uint8)
    prompt = policy.adapter.encode(policy.adapter.prompt_text("Where is the red circle?", 1), [picture])
    response = policy.adapter.tokenizer("a red circle", return_tensors="np")["input_ids"][0].astype(np.int32)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3)
    before = generators()
    logprobs, _ = policy(pack([prompt], [[response, response]], policy.adapter, policy.model))
    logprobs.sum().backward()
    optimizer.step()
    assert generators() == before


def test_no_part_of_the_policy_drops_anything_out_as_it_is_trained(checkpoint):
    policy = load_policy(ModelConfig(path=checkpoint), temperature=1.0).eval()
    active = [name for name, module in policy.named_modules() if isinstance(module, nn.Dropout) and module.training]
    assert active == []
