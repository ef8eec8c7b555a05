"""What a checkpoint keeps of the data: enough that a continued run counts bad rows as one that was not cut."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mixed_r1_ray.checkpointing import Checkpointer
from mixed_r1_ray.config import Config
from mixed_r1_ray.data.loader import PromptLoader
from mixed_r1_ray.data.order import BatchOrder
from mixed_r1_ray.data.reader import BadRow
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.runtime import checkpoints


class Learners:
    """Their state is a file."""

    def save(self, folder):
        (folder / "weights").write_text("w")

    def load(self, folder):
        assert (folder / "weights").read_text() == "w"


class Journal:
    def __init__(self):
        self.said, self.warned, self.step = [], [], None

    def say(self, text):
        self.said.append(text)

    def warn(self, text):
        self.warned.append(text)

    def continue_from(self, step):
        self.step = step


def parts(tmp_path, num_rows: int = 50):
    order = BatchOrder(["chart"] * num_rows, 4, seed=0)
    known = [BadRow("a.parquet", 9, "id", "is empty")]
    loader = PromptLoader([], "train", Config(), range(num_rows), known, on_bad_row=lambda bad: None)
    run_dir = SimpleNamespace(checkpoints=tmp_path / "checkpoints", resumed=True)
    return loader, Checkpointer(Config(), run_dir, Learners(), Journal(), order, loader), order


def test_bad_rows_found_before_a_checkpoint_are_known_after_it(tmp_path):
    loader, checkpointer, order = parts(tmp_path)
    found = [BadRow("a.parquet", 3, "images", "cannot be decoded (é)"), BadRow("b.parquet", 1, "question", "too long")]
    loader.bad_rows += found
    checkpointer.save(6)

    resumed, checkpointer, _ = parts(tmp_path)
    assert checkpointer.restore() == 6
    assert resumed.bad_rows == loader.bad_rows
    assert resumed._prepared == {row for step in range(1, 7) for row in order.batch(step)}


def test_a_checkpoint_of_a_version_that_kept_none_is_continued(tmp_path):
    writer = Learners().save
    checkpoints.write_checkpoint(tmp_path / "checkpoints", 2, writer, {"step": 2})
    resumed, checkpointer, _ = parts(tmp_path)
    assert checkpointer.restore() == 2 and resumed.found() == []


def test_data_that_has_other_rows_by_now_is_refused_with_both_numbers(tmp_path):
    parts(tmp_path)[1].save(3)
    with pytest.raises(UserError, match="data.train=synthetic has 51 usable rows, and had 50 when .*step_000003"):
        parts(tmp_path, num_rows=51)[1].restore()
