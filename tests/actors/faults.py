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
    from mixed_r1_ray.policy.reading import shifted_sources

    return _altered_packing(lambda packed: replace(packed, source_index=shifted_sources(packed, 1)))


def gap_before_responses(learner) -> Mend:
    """Positions of the responses do not go on from the prompt's."""

    def alter(packed):
        positions = packed.position_ids.clone()
        positions[..., -len(packed.source_index) :] += 3
        return replace(packed, position_ids=positions)

    return _altered_packing(alter)


def one_axis_positions(learner) -> Mend:
    """Pictures take as many positions as tokens: as of a text model."""
    import torch

    def count(model, input_ids, pixels):
        return torch.arange(len(input_ids)).expand(3, -1), len(input_ids)

    adapter = learner.learner.adapter
    adapter.prompt_positions = count
    return lambda: delattr(adapter, "prompt_positions")


def neighbours_prompt(learner) -> Mend:
    """Responses attend to the first token of the next prompt besides, and its own miss it."""
    from mixed_r1_ray.policy.segments import Segments

    def alter(packed):
        seen = packed.attention.prompts
        if len(seen.key_lengths) == 1:
            return packed
        first, *middle, last = seen.key_lengths
        moved = Segments.across(seen.query_lengths, (first + 1, *middle, last - 1))
        return replace(packed, attention=replace(packed.attention, prompts=moved))

    return _altered_packing(alter)


def _altered_sampling(rollout, **settings) -> Mend:
    engine, right = rollout.engine, rollout.engine._params

    def params(*arguments):
        altered = right(*arguments)
        for name, value in settings.items():
            setattr(altered, name, value)
        return altered

    engine._params = params
    return lambda: delattr(engine, "_params")


def _altered_packing(alter: Callable) -> Mend:
    from mixed_r1_ray.policy import logprobs

    right = logprobs.pack
    logprobs.pack = lambda *arguments: alter(right(*arguments))
    return lambda: setattr(logprobs, "pack", right)
