"""Seeds of samples."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mixed_r1_ray.rollout.sampling import MAX_SEED, group_seed


def test_seeds_are_pinned_so_that_a_run_can_be_repeated_elsewhere():
    assert group_seed(0, 1, "quickstart/0") == 39_532_314
    assert group_seed(7, 250, "chartqa-17 ü") == 576_286_532


@given(st.integers(0, 2**63), st.integers(0, 10**6), st.text())
def test_every_sample_of_a_large_group_has_a_seed_that_engines_take(run_seed, step, prompt_id):
    seed = group_seed(run_seed, step, prompt_id)
    assert 0 <= seed < MAX_SEED == 2**31 - 1


def test_neighbouring_runs_steps_and_prompts_share_no_stream():
    """Sample i uses seed + i: the ranges of 8 samples of all groups must not meet."""
    seeds = sorted(
        group_seed(run, step, f"p{prompt}") for run in range(3) for step in range(20) for prompt in range(20)
    )
    assert len(set(seeds)) == 3 * 20 * 20
    assert sum(after - before < 8 for before, after in zip(seeds, seeds[1:], strict=False)) <= 1


def test_the_parts_do_not_run_into_each_other():
    assert group_seed(1, 11, "p") != group_seed(11, 1, "p")
    assert group_seed(1, 1, "1/p") != group_seed(1, 11, "/p")
