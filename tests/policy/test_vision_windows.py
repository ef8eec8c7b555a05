"""A tower that cuts its patches into windows and pictures: one call a layer, and what eager attention computes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from mixed_r1_ray.config import ModelConfig
from mixed_r1_ray.policy.loading import load_policy

SIZES = [(112, 112), (60, 100), (28, 90), (30, 30)]  # 4 windows; windows of several sizes; one


@pytest.fixture(scope="module")
def policy(tiny_checkpoints):
    return load_policy(ModelConfig(path=tiny_checkpoints["qwen2_5_vl"]), 1.0).eval()


@pytest.fixture(scope="module")
def pixels(policy):
    random, adapter = np.random.default_rng(0), policy.adapter
    pictures = [random.integers(0, 255, (height, width, 3), dtype=np.uint8) for width, height in SIZES]
    inputs = adapter.encode(adapter.prompt_text("What is it?", len(pictures)), pictures)
    return {name: torch.from_numpy(np.array(array)) for name, array in inputs.pixels.items()}


def test_each_layer_attends_in_one_call_however_many_windows(policy, pixels):
    vision = policy.model.config.vision_config
    name, segments = vision._attn_implementation, []
    right = ALL_ATTENTION_FUNCTIONS[name]

    def counting(*arguments, cu_seq_lens_q=None, **kwargs):
        segments.append(None if cu_seq_lens_q is None else len(cu_seq_lens_q) - 1)
        return right(*arguments, cu_seq_lens_q=cu_seq_lens_q, **kwargs)

    ALL_ATTENTION_FUNCTIONS.register(name, counting)
    try:
        policy.adapter.image_features(policy.model, pixels)
    finally:
        ALL_ATTENTION_FUNCTIONS.register(name, right)
    assert len(segments) == vision.depth
    full = len(vision.fullatt_block_indexes)
    assert 0 < full < vision.depth, "the tiny tower has layers of both kinds"
    assert Counter(segments) == {len(SIZES): full, 4 + 2 + 2 + 1: vision.depth - full}


def test_features_and_gradients_are_those_of_eager_attention(policy, pixels, tiny_checkpoints):
    eager = AutoModelForImageTextToText.from_pretrained(tiny_checkpoints["qwen2_5_vl"], attn_implementation="eager")
    results = []
    for model in (policy.model, eager.eval()):
        features = policy.adapter.image_features(model, pixels)
        (features * torch.linspace(-1, 1, features.numel()).view_as(features)).sum().backward()
        results.append((features.detach(), {n: p.grad for n, p in model.model.visual.named_parameters()}))
    (ours, our_gradients), (theirs, their_gradients) = results
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for name, gradient in their_gradients.items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(our_gradients[name], gradient, atol=2e-5 * scale, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
