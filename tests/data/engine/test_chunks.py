"""Stage 3, the work: chunks keep to rows of their file, and answers find their records again."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from engine_cases import Asked, encoded, photo, table_of

from mixed_r1_ray.data.engine.chunks import gather, plan_chunks
from mixed_r1_ray.data.reader import BadRow
from mixed_r1_ray.difficulty import write_answers
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.experience import Experience
from mixed_r1_ray.types import GroupInfo, Prompt, RewardBreakdown


@pytest.fixture
def table(tmp_path):
    """Two files of 10 and 7 records."""
    picture = encoded(photo(1))
    sizes = ("a", 10), ("b", 7)
    files = [[Asked(f"{name}{n}", picture, f"{name} {n}?") for n in range(size)] for name, size in sizes]
    return table_of(tmp_path / "in", *files)


def prompt(name: str) -> Prompt:
    return Prompt(name, "charts", "chart", "Q?", "3", None, ((9, 9),), None, "Q?", 5)


def experience(name: str, tasks: list[float | None]) -> Experience:
    details = ("timed out" if task is None else "" for task in tasks)
    rewards = tuple(RewardBreakdown("chart", task, task, task, text) for task, text in zip(tasks, details, strict=True))
    info = GroupInfo(name, tuple(range(1, len(tasks) + 1)), (True,) * len(tasks), 0)
    return Experience(prompt(name), info, SimpleNamespace(), rewards, None)


def test_chunks_are_windows_of_rows_of_one_file(table, tmp_path):
    chunks = plan_chunks(table, np.arange(17), 4, tmp_path / "answers", "model")
    assert sorted(len(chunk.rows) for chunk in chunks) == [2, 3, 4, 4, 4]
    assert np.concatenate([chunk.records for chunk in chunks]).tolist() == list(range(17))
    assert all(len({int(row) // 4 for row in chunk.rows}) == 1 for chunk in chunks)


def test_dropping_a_record_changes_no_chunk_but_its_own(table, tmp_path):
    one = plan_chunks(table, np.arange(17), 4, tmp_path / "answers", "model")
    other = plan_chunks(table, np.delete(np.arange(17), 5), 4, tmp_path / "answers", "model")
    changed = {chunk.made_of for chunk in one} - {chunk.made_of for chunk in other}
    assert changed == {next(chunk.made_of for chunk in one if 5 in chunk.records)}
    another_model = plan_chunks(table, np.arange(17), 4, tmp_path / "answers", "other")
    assert not {chunk.made_of for chunk in one} & {chunk.made_of for chunk in another_model}


def test_answers_are_written_and_found_again(table, tmp_path):
    (chunk, *_) = plan_chunks(table, np.array([1, 2, 3]), 4, tmp_path / "answers", "model")
    prompts = [prompt("x"), BadRow("a.parquet", 2, "question", "is too long"), prompt("y")]
    assert not chunk.finished()
    write_answers(chunk, prompts, [experience("y", [1.0, 0.0, None, 0.5]), experience("x", [None] * 4)])
    assert chunk.finished()
    rows = pq.read_table(chunk.shard).to_pylist()
    assert [row["row"] for row in rows] == chunk.rows.tolist()
    assert rows[2]["rewards"] == [1.0, 0.0, None, 0.5] and rows[2]["lengths"] == [1, 2, 3, 4]
    answers = gather(table, [chunk], 4)
    assert answers.mean[3] == 0.5 and answers.std[3] == pytest.approx(np.std([1.0, 0.0, 0.5]))
    assert answers.num_scored[[1, 2, 3]].tolist() == [0, 0, 3]
    assert answers.unusable == {2: "question: is too long"}
    assert np.isnan(answers.mean[[0, 1, 2, 4]]).all()


def test_a_chunk_of_which_nothing_could_be_scored_is_not_kept(table, tmp_path):
    (chunk, *_) = plan_chunks(table, np.array([1]), 4, tmp_path / "answers", "model")
    with pytest.raises(UserError, match="none of 2 answers could be scored; the first one: .*timed out"):
        write_answers(chunk, [prompt("x")], [experience("x", [None, None])])
    assert not chunk.finished()
