"""Faults to plant in a real actor: each function breaks the worker that it is given and returns what mends it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

from ray import cloudpickle

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors know no tests
Mend = Callable[[], None]


def trainer_at_another_temperature(learner) -> Mend:
    policy = learner.learner.policy
    right, policy.temperature = policy.temperature, 1.25 * policy.temperature
    return lambda: setattr(policy, "temperature", right)


def engine_at_another_temperature(rollout) -> Mend:
    return _altered_sampling(rollout, temperature=1.0)


def unbanned_media_tokens(rollout) -> Mend:
    return _altered_sampling(rollout, logit_bias=None)


def off_by_one_shift(learner) -> Mend:
    return _altered_rows(lambda row, prompt: replace(row, source_index=row.source_index + 1))


def gap_before_responses(learner) -> Mend:
    """Positions of the responses do not go on from the prompt's."""

    def alter(row, prompt):
        positions = row.positions.clone()
        positions[:, len(prompt.input_ids) :] += 3
        return replace(row, positions=positions)

    return _altered_rows(alter)


def one_axis_positions(learner) -> Mend:
    """Pictures take as many positions as tokens: as of a text model."""
    import torch

    def count(model, input_ids, pixels):
        return torch.arange(len(input_ids)).expand(3, -1), len(input_ids)

    adapter = learner.learner.adapter
    adapter.prompt_positions = count
    return lambda: delattr(adapter, "prompt_positions")


def padding_leak(learner) -> Mend:
    """Responses attend to the padding behind a prompt that is not the longest."""
    from mixed_r1_ray.policy.group_attention import GroupAttention

    right = GroupAttention.__dict__["plan"]

    def plan(*arguments):
        attention = right.__get__(None, GroupAttention)(*arguments)
        for bucket in attention.buckets:
            bucket.mask[..., : attention.prompt_width] = True
        return attention

    GroupAttention.plan = staticmethod(plan)
    return lambda: setattr(GroupAttention, "plan", right)


def _altered_sampling(rollout, **settings) -> Mend:
    engine, right = rollout.engine, rollout.engine._params

    def params(*arguments):
        altered = right(*arguments)
        for name, value in settings.items():
            setattr(altered, name, value)
        return altered

    engine._params = params
    return lambda: delattr(engine, "_params")


def _altered_rows(alter: Callable) -> Mend:
    from mixed_r1_ray.policy.packing import _Row

    right = _Row.__dict__["lay_out"]

    def lay_out(prompt, *arguments):
        return alter(right.__get__(None, _Row)(prompt, *arguments), prompt)

    _Row.lay_out = staticmethod(lay_out)
    return lambda: setattr(_Row, "lay_out", right)
