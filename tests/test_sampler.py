"""What a checkpoint keeps of the data: enough that a continued run counts bad rows as one that was not cut."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mixed_r1_ray.config import Config
from mixed_r1_ray.data.loader import PromptLoader
from mixed_r1_ray.data.order import BatchOrder
from mixed_r1_ray.data.reader import BadRow
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.sampler import Sampler

KNOWN = [BadRow("a.parquet", 9, "id", "is empty")]


def make_sampler(num_rows: int = 50) -> Sampler:
    order = BatchOrder(["chart"] * num_rows, 4, seed=0)
    loader = PromptLoader([], "train", Config(), range(num_rows), KNOWN, on_bad_row=lambda bad: None)
    rows = SimpleNamespace(reward_types=["chart"], reward_type=[0] * num_rows)
    return Sampler(Config(), order, rows, loader, None, None, warn=lambda text: None)


def test_bad_rows_found_before_a_checkpoint_are_known_after_it(tmp_path):
    sampler = make_sampler()
    sampler.loader.bad_rows += [BadRow("a.parquet", 3, "images", "cannot be decoded (é)"), BadRow("b.parquet", 1, "question", "too long")]
    state = sampler.save(tmp_path)

    resumed = make_sampler()
    resumed.restore(state, 6, tmp_path)
    assert resumed.loader.bad_rows == sampler.loader.bad_rows
    assert resumed.loader._prepared == {row for step in range(1, 7) for row in sampler.planned.batch(step)}


def test_a_checkpoint_of_a_version_that_kept_none_is_continued(tmp_path):
    resumed = make_sampler()
    resumed.restore({"step": 2}, 2, tmp_path)
    assert resumed.loader.found() == []


def test_data_that_has_other_rows_by_now_is_refused_with_both_numbers(tmp_path):
    state = make_sampler().save(tmp_path)
    with pytest.raises(UserError, match="data.train=synthetic has 51 usable rows, and had 50 when .* was written"):
        make_sampler(num_rows=51).restore(state, 3, tmp_path)
