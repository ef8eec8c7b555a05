"""Each fault that makes engine and trainer disagree is planted in real ones: the proof stops and names it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from weight_buckets import all_contents, stored

from mixed_r1_ray.guard import NumericsError
from mixed_r1_ray.types import WeightUpdate

from . import faults
from .test_awkward_batches import in_turn

PICTURES = [[(112, 112)], [(112, 112)], [], [(60, 100), (112, 40)]]


@pytest.fixture(params=["internvl", pytest.param("qwen2_5_vl", marks=pytest.mark.slow)])
def parts(request, start_parts):
    return start_parts(request.param)


@pytest.fixture
def prompts(parts):
    return [parts.prompt(f"p{number}", sizes, "Where?" + " a" * number) for number, sizes in enumerate(PICTURES)]


def cause(parts, prompts) -> str:
    with pytest.raises(NumericsError) as caught:
        parts.prove(prompts)
    return str(caught.value)


def test_without_a_fault_nothing_is_found(parts, prompts):
    assert parts.prove(prompts) <= 1e-4


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (faults.off_by_one_shift, "off-by-one shift: the trainer reads its log-probabilities one token too late"),
        (faults.gap_before_responses, "wrong position ids in the trainer"),
        (faults.neighbours_prompt, "prompts of a batch leak into each other in the trainer"),
        (faults.trainer_at_another_temperature, "the trainer does not divide by rollout.temperature 0.8"),
    ],
)
def test_a_fault_of_the_trainer_is_named(parts, prompts, fault, named):
    with parts.planted("learners", fault):
        assert named in cause(parts, prompts)
    assert parts.prove(prompts) <= 1e-4


def test_an_engine_that_samples_at_another_temperature_is_named_with_it(parts, prompts):
    with parts.planted("rollout", faults.engine_at_another_temperature):
        assert "agree at 1, and the engine does not sample at rollout.temperature 0.8" in cause(parts, prompts)


@pytest.mark.slow
def test_positions_as_of_a_text_model_are_named(start_parts):
    parts = start_parts("qwen2_5_vl")
    prompts = [parts.prompt("seen", [(112, 112)]), parts.prompt("told", [])]
    with parts.planted("learners", faults.one_axis_positions):
        assert "wrong position ids in the trainer" in cause(parts, prompts)


@pytest.mark.slow
def test_in_bfloat16_rounding_passes_and_faults_are_named_all_the_same(start_parts):
    parts = start_parts("internvl", {"model.dtype": "bfloat16"})
    prompts = [parts.prompt(f"p{number}", sizes, "Where?" + " a" * number) for number, sizes in enumerate(PICTURES)]
    assert 1e-4 < parts.prove(prompts) <= 1.0
    with parts.planted("rollout", faults.engine_at_another_temperature):
        assert "wrong temperature" in cause(parts, prompts)
        with pytest.raises(NumericsError, match=r"step 1: .* on average by .*guard\.max_mean_mismatch"):
            parts.learners.update(parts.batch(parts.sample(prompts), in_turn))
    with parts.planted("learners", faults.off_by_one_shift):
        assert "off-by-one shift" in cause(parts, prompts)
    parts.learners.update(parts.batch(parts.sample(prompts), in_turn))
    assert "stale weights in the engine" in cause(parts, prompts)


def test_stale_weights_are_named(parts, prompts):
    parts.learners.update(parts.batch(parts.sample(prompts), in_turn))
    assert "stale weights in the engine" in cause(parts, prompts)
    assert parts.prove(prompts) <= 1e-4  # the diagnosis has loaded them


def test_stale_weights_stop_an_update_before_it_is_applied(parts, prompts):
    """They carry the right version all the same: nothing but their numbers gives them away."""
    parts.learners.update(parts.batch(parts.sample(prompts), in_turn))
    with pytest.raises(NumericsError, match=r"step 1: .*differ by .* on token \d+ of sample \d of prompt 'p\d'"):
        parts.learners.update(parts.batch(parts.sample(prompts, step=2), in_turn))


def test_a_parameter_dropped_on_the_way_is_named(parts):
    update = parts.learners.weights(version=7)
    dropped = next(name for name in update.names if name.endswith("layers.2.mlp.down_proj.weight"))
    arrived = all_contents(update)
    without = stored({name: tensor for name, tensor in arrived.items() if name != dropped})
    with pytest.raises(NumericsError, match=r"version 7 left 1 .*layers\.2\.mlp\.down_proj"):
        parts.rollout.load_weights(WeightUpdate(7, (without,)))


def test_a_swapped_picture_is_named_with_its_owner(parts, prompts):
    first, second, *others = prompts
    mixed_up = [replace(first, images=second.images), second, *others]
    assert "swapped pictures: for prompt 'p0' the engine saw those of 'p1'" in cause(parts, mixed_up)


def test_other_pixels_of_unknown_origin_are_placed_where_they_show(parts, prompts):
    first, second, *others = prompts
    stranger = parts.prompt("stranger", [(112, 112)])
    mixed_up = [replace(first, images=stranger.images), replace(second, images=stranger.images), others[0]]
    assert "only prompts with pictures differ" in cause(parts, mixed_up)


def test_an_unbanned_media_token_is_named_whether_it_is_said_or_not(parts, prompts):
    with parts.planted("rollout", faults.unbanned_media_tokens):
        for chosen in (prompts, prompts[:1], prompts[2:3]):
            assert "does not ban media tokens" in cause(parts, chosen)
