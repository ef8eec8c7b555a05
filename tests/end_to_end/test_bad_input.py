"""What a user gets wrong costs one clear message, a non-zero exit and no process left behind."""

from __future__ import annotations

import json
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest


@pytest.fixture(scope="module")
def records(plain_run, cache) -> pa.Table:
    """The quickstart's training data at its tiny size, in order."""
    return pq.read_table(next(cache.glob("quickstart-*/train.parquet")))


@pytest.fixture
def dataset(records, tmp_path) -> Callable[..., str]:
    """Writes the records as `change` leaves them and returns the file's path."""

    def dataset(change: Callable[[list[dict]], list[dict]]) -> str:
        rows = change(records.to_pylist())
        pq.write_table(pa.Table.from_pylist(rows, schema=records.schema), tmp_path / "records.parquet")
        return str(tmp_path / "records.parquet")

    return dataset


@pytest.fixture
def refused(start) -> Callable[..., str]:
    """Starts a run that must fail politely, and returns the last thing it said."""

    def refused(*overrides: str, **options) -> str:
        run = start(*overrides, **options)
        assert run.finish() in (1, 2)
        assert "Traceback" not in run.output
        message = run.output[run.output.index("error: ") :]
        assert message.count("error: ") == 1
        assert run.leftovers() == {}
        return message

    return refused


def test_missing_dataset_is_named(refused, tmp_path):
    message = refused(f"data.train={tmp_path / 'no.parquet'}", folder=tmp_path / "run")
    assert f"data.train={tmp_path / 'no.parquet'}: there is no such file" in message
    assert not (tmp_path / "run").exists()


def test_missing_model_is_named(refused):
    assert "model.path=/no/such/model" in refused("model.path=/no/such/model")


def test_more_actors_than_the_machine_holds_shows_the_arithmetic_before_anything_starts(refused):
    message = refused("rollout.num_workers=50")
    assert "rollout 50 x 0.3" in message and "15.7 CPUs needed, 2 available" in message


def test_folder_of_another_run_is_refused(refused, plain_run):
    message = refused("run.max_steps=2", folder=plain_run.folder)
    assert str(plain_run.folder) in message and "run.resume=auto" in message and "run.resume=overwrite" in message


def test_folder_with_a_strangers_files_is_refused_and_left_alone(refused, tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter1.tex").write_text("years of work")
    assert "chapter1.tex" in refused("run.resume=overwrite", folder=folder)
    assert (folder / "chapter1.tex").read_text() == "years of work"


@pytest.mark.more_runs
def test_bad_rows_are_named_counted_and_left_out(start, dataset):
    def spoil(rows: list[dict]) -> list[dict]:
        rows[7]["reward_type"] = "guess"
        rows[11]["images"] = [{"bytes": b"not a picture", "path": None}]
        rows[13]["images"][0]["bytes"] = rows[13]["images"][0]["bytes"][:100]
        rows[17]["question"] = "why? " * 400
        return rows

    # 252 usable rows at 32 a step: the first eight steps see every one of them.
    run = start(
        f"data.train={dataset(spoil)}", "data.eval=null", "run.max_steps=8", "rollout.prompts_per_step=32",
        "rollout.group_size=2", "rollout.max_new_tokens=8",
    )
    assert run.finish() == 0, run.output[-6000:]
    texts = [json.loads(line)["text"] for line in (run.folder / "warnings.jsonl").read_text().splitlines()]
    for row, field in ((7, "reward_type"), (11, "images"), (13, "images"), (17, "question")):
        assert sum(f"records.parquet, row {row}, {field}: " in text for text in texts) == 1, (row, texts)
    assert [line["data/bad_rows"] for line in run.metrics()][-1] == 4
    assert "Traceback" not in run.output


@pytest.mark.slow
def test_empty_dataset_is_named(refused, dataset):
    path = dataset(lambda rows: [])
    assert f"{path}: holds no rows" in refused(f"data.train={path}")


@pytest.mark.slow
def test_dataset_of_bad_rows_is_refused_with_examples(refused, dataset):
    message = refused(f"data.train={dataset(lambda rows: [row | {'answer': ''} for row in rows])}")
    assert "256 of 256 rows cannot be used" in message and "row 0, answer: is empty" in message


@pytest.mark.slow
def test_fewer_rows_than_a_step_takes_are_refused(refused):
    assert "256 usable rows are fewer than rollout.prompts_per_step=1000" in refused("rollout.prompts_per_step=1000")


@pytest.mark.slow
def test_prompts_longer_than_the_model_stop_the_run_with_the_arithmetic(refused):
    message = refused("model.max_length=30")
    assert "model.max_length 30 - rollout.max_new_tokens 24 leaves 6" in message


@pytest.mark.slow
def test_undecodable_pictures_everywhere_stop_the_run_before_its_first_step(refused, dataset, tmp_path):
    unreadable = {"images": [{"bytes": b"not a picture", "path": None}]}
    path = dataset(lambda rows: [row | unreadable for row in rows])
    message = refused(f"data.train={path}", "data.eval=null", folder=tmp_path / "run")
    assert "none of the 4 rows drawn for a batch can be used" in message and "cannot be decoded" in message
    warnings = (tmp_path / "run" / "warnings.jsonl").read_text()
    assert "images: cannot be decoded" in warnings
