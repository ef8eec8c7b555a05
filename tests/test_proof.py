"""The proof and its diagnosis on a real policy, without actors: the engine is the same policy, read in another way.

tests/actors/test_planted_faults.py does the same with a real engine and real learners.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mixed_r1_ray import diagnosis, proof
from mixed_r1_ray.config import Config, ModelConfig
from mixed_r1_ray.guard import Guard, MismatchError, NumericsError
from mixed_r1_ray.policy.loading import load_policy
from mixed_r1_ray.policy.reading import read_logprobs
from mixed_r1_ray.rollout.pool import FinishedGroup
from mixed_r1_ray.policy.reference_pool import ReferencePool
from mixed_r1_ray.types import Group, GroupInfo, Prompt, Reading, Rollout

CONFIGURED = Reading()
GUARD = Guard(1e-4, 1e-6)


@pytest.fixture(scope="module")
def policy(checkpoint):
    return load_policy(ModelConfig(path=checkpoint), temperature=0.8).eval()


@pytest.fixture(autouse=True)
def no_store(monkeypatch):
    """References are the objects themselves."""
    for module in (diagnosis, proof):
        monkeypatch.setattr(module, "fetch", lambda refs, what, deadline_s: refs)


@pytest.fixture(scope="module")
def prompts(policy):
    random, made = np.random.default_rng(0), []
    for number, sizes in enumerate([[(112, 112)], [(112, 112)], []]):
        images = [random.integers(0, 255, (height, width, 3), dtype=np.uint8) for width, height in sizes]
        inputs = policy.adapter.encode(policy.adapter.prompt_text("Where?" + " a" * number, len(images)), images)
        text = dict(source="", reward_type="matching", question="", answer="", choices=None, box_frame=None, text="")
        made.append(
            Prompt(f"p{number}", image_sizes=tuple(sizes), num_tokens=len(inputs.input_ids), inputs=inputs, **text)
        )
    return made


class Learners:
    def __init__(self, policy):
        self.policy, self.config = policy, Config()
        self.config.rollout.temperature = 0.8

    def logprobs(self, groups, reading=CONFIGURED):
        with torch.no_grad():
            return read_logprobs(
                self.policy,
                self.policy,
                [group.prompt.inputs for group in groups],
                [[rollout.token_ids for rollout in group.group.rollouts] for group in groups],
                reading,
            )

    def weights(self, version):
        return version


class Rollouts:
    """An engine that reads each prompt's samples by itself as `readings` says, until it is given weights."""

    def __init__(self, learners, readings=CONFIGURED, noise=0.0):
        self.learners, self.readings, self.noise = learners, readings, noise

    def load_weights(self, update):
        self.noise = 0.0

    def generate(self, prompts, sampling, step):
        assert sampling.temperature == 0.8
        for prompt in prompts:
            random = np.random.default_rng(list(prompt.prompt_id.encode()))
            tokens = [random.integers(20, 60, 6).astype(np.int32) for _ in range(sampling.num_samples)]
            yield self._group(prompt, tokens)

    def _group(self, prompt, tokens):
        def group(logprobs):
            rollouts = [
                Rollout(number, ids, numbers, np.zeros(len(ids), np.int32), "", True)
                for number, (ids, numbers) in enumerate(zip(tokens, logprobs, strict=True))
            ]
            finished = Group(prompt.prompt_id, np.zeros(1, np.int32), tuple(rollouts))
            info = GroupInfo(prompt.prompt_id, (6,) * len(tokens), (True,) * len(tokens), 0)
            return FinishedGroup(prompt, info, finished)

        readings = self.readings.get(prompt.prompt_id, CONFIGURED) if isinstance(self.readings, dict) else self.readings
        read = self.learners.logprobs([group(tokens)], readings)[0] + self.noise
        return group(np.split(read, len(tokens)))


def prove(policy, prompts, readings=CONFIGURED, noise=0.0, guard=GUARD, references=()):
    learners = Learners(policy)
    return proof.prove(prompts, Rollouts(learners, readings, noise), learners, ReferencePool(references, 60.0), guard, step=0)


def test_where_both_read_alike_the_proof_holds(policy, prompts):
    assert prove(policy, prompts) <= 1e-5


@pytest.mark.parametrize(
    ("reading", "named"),
    [
        (Reading(temperature=1.1), "they agree at 1.1, and the engine does not sample at rollout.temperature 0.8"),
        (Reading(ban=False), "the engine does not ban media tokens"),
        (Reading(shift=1), "one token too early"),
        (Reading(shift=-1), "one token too late"),
    ],
)
def test_another_way_of_reading_is_named(policy, prompts, reading, named):
    with pytest.raises(MismatchError, match="guard.max_mean_mismatch") as caught:
        prove(policy, prompts, reading)
    assert named in str(caught.value)


def test_swapped_pictures_are_named_with_their_owner(policy, prompts):
    with pytest.raises(MismatchError, match="for prompt 'p1' the engine saw those of 'p0'"):
        prove(policy, prompts, {"p1": Reading(pictures=prompts[0].inputs)})


def test_stale_weights_are_what_fresh_ones_heal(policy, prompts):
    with pytest.raises(MismatchError, match="stale weights in the engine"):
        prove(policy, prompts, noise=0.3)


def test_a_small_difference_everywhere_is_found_by_its_mean(policy, prompts):
    """As in bfloat16, where single tokens may be far off."""
    lax = Guard.from_config(Config(model=ModelConfig(dtype="bfloat16")))
    assert prove(policy, prompts, noise=0.09, guard=lax) < 0.1
    with pytest.raises(MismatchError, match=r"on average by 0.11 \(allowed 0.1, guard.max_mean_mismatch\)"):
        prove(policy, prompts, noise=0.11, guard=lax)


@pytest.mark.parametrize(
    ("reading", "moved", "named"),
    [(Reading(temperature=1.1), 0.0, "wrong temperature"), (CONFIGURED, 0.2, "stale weights in the engine")],
)
def test_in_bfloat16_faults_are_named_through_the_rounding_and_rounding_alone_passes(
    checkpoint, prompts, reading, moved, named
):
    """The engine is off by what was measured on real weights: the mean, and one token by the 99.9 % quantile."""
    policy = load_policy(ModelConfig(path=checkpoint, dtype="bfloat16"), temperature=0.8).eval()
    guard = Guard.from_config(Config(model=ModelConfig(dtype="bfloat16")))
    noise = np.resize([0.04, -0.04], 12)
    noise[7] = 0.25
    assert prove(policy, prompts, noise=noise, guard=guard) == pytest.approx(0.25, abs=0.05)
    with pytest.raises(MismatchError, match="guard.max_mean_mismatch") as caught:
        prove(policy, prompts, reading, noise + moved, guard)
    assert named in str(caught.value)


def test_a_proof_that_fails_names_the_token_that_differs_most(policy, prompts):
    noise = np.zeros(12)
    noise[8] = 0.3  # the third token of the second of two responses of six
    with pytest.raises(MismatchError, match="by 0.3 on token 2 of sample 1 of prompt 'p0'"):
        prove(policy, prompts[:1], noise=noise)


def test_what_nothing_explains_is_called_unknown_and_described(policy, prompts):
    stranger = Reading(pictures=type(prompts[0].inputs)(prompts[0].inputs.input_ids, darker(prompts[0].inputs.pixels)))
    with pytest.raises(MismatchError, match="unknown, but only prompts with pictures differ"):
        prove(policy, prompts, {"p0": stranger, "p1": stranger})


def darker(pixels):
    return {name: array * 0.5 if array.dtype == np.float32 else array for name, array in pixels.items()}


def test_a_reference_that_is_another_model_stops_step_0(policy, prompts):
    learners = Learners(policy)

    def away(inputs, group):
        return True, [rollout.logprobs + 0.2 for rollout in group.rollouts]

    reference = SimpleNamespace(logprobs=SimpleNamespace(remote=away))
    with pytest.raises(NumericsError, match="guard.max_initial_kl"):
        proof.prove(prompts, Rollouts(learners), learners, ReferencePool([reference], 60.0), GUARD, step=0)
