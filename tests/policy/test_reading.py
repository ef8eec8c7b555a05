"""The trainer's own reading of log-probabilities, and those that it supposes of the engine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from plain_forward import plain_logprobs

from mixed_r1_ray.config import ModelConfig
from mixed_r1_ray.policy.loading import load_policy
from mixed_r1_ray.policy.reading import read_logprobs
from mixed_r1_ray.types import Reading

SIZES = [[(112, 112)], [(112, 112)], [], [(60, 100), (112, 40)]]


@pytest.fixture(scope="module")
def policy(checkpoint):
    return load_policy(ModelConfig(path=checkpoint), temperature=0.8).eval()


@pytest.fixture(scope="module")
def prompts(policy):
    random = np.random.default_rng(0)
    prompts = []
    for number, sizes in enumerate(SIZES):
        images = [random.integers(0, 255, (height, width, 3), dtype=np.uint8) for width, height in sizes]
        prompts.append(policy.adapter.encode(policy.adapter.prompt_text("Where?" + " a" * number, len(images)), images))
    return prompts


@pytest.fixture(scope="module")
def responses(policy):
    random = np.random.default_rng(1)
    ordinary = sorted(set(range(len(policy.adapter.tokenizer))) - set(policy.adapter.banned_token_ids))
    return [[random.choice(ordinary, n).astype(np.int32) for n in (3, 6)] for _ in SIZES]


def read(policy, prompts, responses, **reading) -> np.ndarray:
    with torch.no_grad():
        return np.concatenate(read_logprobs(policy, policy, prompts, responses, Reading(**reading)))


def plain(policy, prompts, responses) -> np.ndarray:
    with torch.no_grad():
        parts = [plain_logprobs(policy, p, r) for p, row in zip(prompts, responses, strict=True) for r in row]
    return torch.cat(parts).numpy()


def test_as_configured_it_is_the_plain_forward(policy, prompts, responses):
    assert np.abs(read(policy, prompts, responses) - plain(policy, prompts, responses)).max() <= 1e-5


def test_the_models_own_positions_are_those_of_the_packed_layout(policy, prompts, responses):
    own = read(policy, prompts, responses, own_positions=True)
    assert np.abs(own - read(policy, prompts, responses)).max() <= 1e-6


def test_another_temperature_is_that_temperature_and_is_forgotten_afterwards(policy, prompts, responses):
    before = read(policy, prompts, responses)
    supposed = read(policy, prompts, responses, temperature=1.3)
    policy.temperature = 1.3
    expected = plain(policy, prompts, responses)
    policy.temperature = 0.8
    assert np.abs(supposed - expected).max() <= 1e-5 < np.abs(supposed - before).max()
    assert np.array_equal(read(policy, prompts, responses), before)


def test_without_the_ban_every_token_is_less_likely(policy, prompts, responses):
    assert (read(policy, prompts, responses, ban=False) < read(policy, prompts, responses)).all()
    assert len(policy.adapter.banned_token_ids) > 1  # and it is back


def test_a_shift_reads_what_the_next_state_predicts(policy, prompts, responses):
    """One response: its tokens moved by one, the same states predict the first T - 1 of them."""
    ((first, *rest),) = ([int(token) for token in responses[0][1]],)
    shifted = read(policy, prompts[:1], [[np.array([first, *rest], np.int32)]], shift=1)
    doubled = read(policy, prompts[:1], [[np.array([first, first, *rest[:-1]], np.int32)]])
    assert shifted[0] == pytest.approx(doubled[1], abs=1e-5)


def test_other_pictures_are_looked_at_instead(policy, prompts, responses):
    supposed = read(policy, prompts[:1], responses[:1], pictures=prompts[1])
    swapped = [type(prompts[0])(prompts[0].input_ids, prompts[1].pixels)]
    assert np.abs(supposed - plain(policy, swapped, responses[:1])).max() <= 1e-5
    assert np.abs(supposed - read(policy, prompts[:1], responses[:1])).max() > 1e-4
