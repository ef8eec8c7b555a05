"""Reading record files: files that cannot be used, rows that cannot, and what is said of each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixed_r1_ray.data.reader import BadRow, RecordTable, check_bad_fraction
from mixed_r1_ray.data.schema import SCHEMA, Record, write_records
from mixed_r1_ray.errors import UserError

GOOD = Record(
    id="r0",
    source="shapes",
    reward_type="matching",
    images=(b"first", b"second"),
    image_sizes=((40, 30), (20, 10)),
    question="Is it red?",
    answer="yes",
    choices=None,
    meta='{"split": "train"}',
)
NULLABLE = pa.schema([field.with_nullable(True) for field in SCHEMA])


def records(count: int, first: int = 0) -> list[Record]:
    return [replace(GOOD, id=f"r{number}") for number in range(first, first + count)]


def write_rows(path: Path, rows: list[dict], schema: pa.Schema = NULLABLE) -> str:
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return str(path)


def table_of(path, allowed: float = 0.0) -> RecordTable:
    """Its Arrow copies lie beside the data."""
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    return RecordTable(str(path), allowed, folder / "cache")


def complaint(path, allowed: float = 0.0) -> str:
    with pytest.raises(UserError) as caught:
        assert table_of(path, allowed).rows is None
    return str(caught.value)


def test_records_come_back_as_they_were_written(tmp_path):
    written = [
        GOOD,
        replace(GOOD, id="choice", choices=("a cat", "a dog"), answer="B", images=(), image_sizes=()),
        replace(
            GOOD,
            id="box",
            reward_type="iou",
            answer="[[1, 2, 30, 20]]",
            images=(b"x",),
            image_sizes=((40, 30),),
        ),
        replace(GOOD, id="chart", reward_type="chart", answer="12.5"),
        replace(GOOD, id="caption", reward_type="open_ended", answer="a red circle ü"),
        replace(GOOD, id="math", reward_type="math", answer="\\frac{1}{2}"),
        replace(GOOD, id="count", reward_type="counting", answer='{"any_of": [3, 4]}'),
        replace(GOOD, id="mine", reward_type="custom", answer="whatever my function reads"),
    ]
    write_records(tmp_path / "train.parquet", written)
    table = table_of(tmp_path / "train.parquet", 0.0)
    assert table.bad_rows == []
    assert [table.record(index) for index in range(len(table.rows))] == written
    assert [table.rows.reward_types[code] for code in table.rows.reward_type] == [one.reward_type for one in written]


def test_shards_of_a_folder_are_read_in_name_order_and_rows_know_their_place(tmp_path):
    write_records(tmp_path / "b.parquet", records(2, first=3))
    write_records(tmp_path / "a.parquet", records(3))
    (tmp_path / "notes.txt").write_text("not a shard")
    table = table_of(tmp_path, 0.0)
    assert [table.record(index).id for index in range(len(table.rows))] == ["r0", "r1", "r2", "r3", "r4"]
    assert [table.where(index) for index in (0, 2, 4)] == [
        ("a.parquet", 0),
        ("a.parquet", 2),
        ("b.parquet", 1),
    ]
    assert table.record(4).id == "r4"


def test_bad_rows_leave_the_numbering_of_the_others_right(tmp_path):
    rows = [record.to_row() for record in records(5)]
    rows[1]["question"] = ""
    table = table_of(write_rows(tmp_path / "a.parquet", rows), 0.5)
    assert [table.record(index).id for index in range(4)] == ["r0", "r2", "r3", "r4"]
    assert table.where(1) == ("a.parquet", 2)
    assert [str(bad) for bad in table.bad_rows] == ["a.parquet, row 1, question: is empty"]


BOX = {
    "reward_type": "iou",
    "images": [{"bytes": b"x", "path": None}],
    "image_sizes": [{"width": 40, "height": 30}],
}
SIZE = {"width": 40, "height": 30}


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"id": None}, "id", "empty"),
        ({"id": " "}, "id", "empty"),
        ({"id": "r0"}, "id", "'r0' stands for an earlier row"),
        ({"source": ""}, "source", "empty"),
        ({"question": "\n"}, "question", "empty"),
        ({"answer": None}, "answer", "empty"),
        ({"reward_type": "judge"}, "reward_type", "'judge' is none of matching, chart, iou, open_ended"),
        ({"reward_type": None}, "reward_type", "None is none of"),
        ({"images": None}, "images", "null"),
        ({"images": [None, None]}, "images", "picture 0 holds no bytes"),
        (
            {"images": [{"bytes": b"x"}, {"bytes": None, "path": "b.png"}]},
            "images",
            "picture 1 holds no bytes",
        ),
        ({"images": [{"bytes": b""}] * 2}, "images", "picture 0 holds no bytes"),
        ({"images": [{"bytes": b"x"}] * 9, "image_sizes": []}, "images", "9 pictures; the most is 8"),
        ({"image_sizes": [SIZE]}, "image_sizes", "1 entries for 2 pictures"),
        ({"image_sizes": [SIZE, None]}, "image_sizes", "no sizes"),
        ({"image_sizes": [SIZE, {"width": None, "height": 3}]}, "image_sizes", "no sizes"),
        ({"image_sizes": [SIZE, {"width": -4, "height": 3}]}, "image_sizes", "no sizes"),
        ({"choices": ["a", None], "answer": "A"}, "choices", "null"),
        ({"choices": ["a cat", "a dog"], "answer": "C"}, "answer", "none of the choices"),
        (BOX | {"answer": "somewhere"}, "answer", "JSON"),
        (BOX | {"answer": "[5, 5, 5, 20]"}, "answer", "box"),
        (BOX | {"answer": "[5, 5, 500, 20]"}, "answer", "outside the image"),
        ({"meta": "{"}, "meta", "not JSON"),
        ({"meta": "[1]"}, "meta", "not a JSON object"),
    ],
    ids=lambda value: json.dumps(value, default=str)[:40] if isinstance(value, dict) else None,
)
def test_each_kind_of_bad_row_is_named_by_file_row_and_field(tmp_path, changes, field, reason):
    rows = [record.to_row() for record in records(4)]
    rows[2] |= changes
    table = table_of(write_rows(tmp_path / "part-7.parquet", rows), 0.5)
    (bad,) = table.bad_rows
    assert (bad.file, bad.row, bad.field) == ("part-7.parquet", 2, field)
    assert reason in bad.reason
    assert len(table.rows) == 3
    assert str(bad) == f"part-7.parquet, row 2, {field}: {bad.reason}"


def test_text_that_is_not_utf8_is_a_bad_row_and_the_others_of_its_batch_are_read(tmp_path):
    rows = [record.to_row() for record in records(4)]
    binary = NULLABLE.set(NULLABLE.get_field_index("question"), pa.field("question", pa.binary()))
    for number, row in enumerate(rows):
        row["question"] = b"caf\xe9" if number == 2 else b"caf\xc3\xa9"
    table = pa.Table.from_pylist(rows, schema=binary)
    unsafe = pa.Array.from_buffers(pa.string(), 4, table["question"].chunk(0).buffers())
    pq.write_table(table.set_column(table.column_names.index("question"), "question", unsafe), tmp_path / "a.parquet")
    table = table_of(tmp_path, 0.5)
    assert [str(bad) for bad in table.bad_rows] == ["a.parquet, row 2, text: is not UTF-8"]
    assert [table.record(index).question for index in range(3)] == ["café"] * 3


def test_planning_is_told_types_sources_places_and_pass_rates(tmp_path):
    write_records(
        tmp_path / "a.parquet",
        [
            replace(GOOD, id="1", meta='{"pass_rate": 0.25}'),
            replace(GOOD, id="2", source="maps", reward_type="open_ended", meta='{"pass_rate": "high"}'),
            replace(GOOD, id="3", source="maps"),
        ],
    )
    rows = table_of(tmp_path).rows
    assert [rows.reward_types[code] for code in rows.reward_type] == ["matching", "open_ended", "matching"]
    assert [rows.sources[code] for code in rows.source] == ["shapes", "maps", "maps"]
    assert [rows.place(index) for index in range(3)] == [(0, 0), (0, 1), (0, 2)]
    assert rows.pass_rate[0] == 0.25 and all(rate != rate for rate in rows.pass_rate[1:])


def test_first_pictures_are_found_by_id(tmp_path):
    write_records(tmp_path / "a.parquet", records(3))
    write_records(tmp_path / "b.parquet", [replace(GOOD, id="bare", images=(), image_sizes=())])
    assert table_of(tmp_path).first_pictures(["r1", "bare", "unknown"]) == {"r1": b"first"}


def test_ids_are_unique_across_shards(tmp_path):
    write_records(tmp_path / "a.parquet", records(2))
    write_records(tmp_path / "b.parquet", records(2, first=1))
    (bad,) = table_of(tmp_path, 0.5).bad_rows
    assert (bad.file, bad.row, bad.field) == ("b.parquet", 0, "id")


def test_optional_columns_may_be_absent_or_null(tmp_path):
    optional = ("choices", "image_sizes", "meta")
    row = {name: value for name, value in GOOD.to_row().items() if name not in optional}
    required = pa.schema([field for field in NULLABLE if field.name not in optional])
    absent = table_of(write_rows(tmp_path / "absent.parquet", [row], required), 0.0)
    null = table_of(write_rows(tmp_path / "null.parquet", [row | dict.fromkeys(optional)]), 0.0)
    assert absent.record(0) == null.record(0) == replace(GOOD, image_sizes=(), meta="{}")


def test_what_the_datasets_library_writes_is_read(tmp_path):
    import datasets

    rows = [record.to_row() for record in records(3)]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    features = datasets.Features(
        {
            "id": datasets.Value("large_string"),
            "source": datasets.Value("string"),
            "reward_type": datasets.Value("string"),
            "images": datasets.List(datasets.Image(decode=False)),
            "question": datasets.Value("string"),
            "answer": datasets.Value("string"),
        }
    )
    images = [{name: row[name] for name in features} | {"id": f"i{n}"} for n, row in enumerate(rows)]
    datasets.Dataset.from_list(images, features=features).to_parquet(tmp_path / "b.parquet")
    table = table_of(tmp_path, 0.0)
    assert [table.record(index).images for index in range(6)] == [GOOD.images] * 6


def test_columns_of_others_are_left_unread(tmp_path):
    table = pa.Table.from_pylist([GOOD.to_row()], schema=SCHEMA).append_column("score", pa.array([1.0]))
    pq.write_table(table, tmp_path / "a.parquet")
    assert table_of(tmp_path, 0.0).record(0) == GOOD


def test_missing_path_is_named(tmp_path):
    assert str(tmp_path / "nowhere") in complaint(tmp_path / "nowhere")


def test_folder_without_parquet_is_named(tmp_path):
    (tmp_path / "train.csv").write_text("id\n1\n")
    assert f"{tmp_path}: the folder holds no *.parquet" in complaint(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"id,question\n1,what\n", b"\x00" * 500])
def test_a_file_that_is_no_parquet_is_named(tmp_path, content):
    (tmp_path / "a.parquet").write_bytes(content)
    assert f"{tmp_path / 'a.parquet'}: is not a readable Parquet file" in complaint(tmp_path)


def test_a_cut_file_is_named(tmp_path):
    write_records(tmp_path / "a.parquet", records(3))
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[: len(whole) // 2])
    assert "is not a readable Parquet file" in complaint(tmp_path)


def test_foreign_parquet_is_told_which_columns_it_misses_and_has(tmp_path):
    pq.write_table(pa.table({"id": ["a"], "source": ["b"], "conversations": ["c"]}), tmp_path / "a.parquet")
    said = complaint(tmp_path)
    assert "misses the column(s) reward_type, images, question, answer" in said
    assert "it has id, source, conversations" in said


def test_a_column_of_another_type_is_refused_with_the_file(tmp_path):
    row = GOOD.to_row() | {"images": "picture.png"}
    schema = NULLABLE.set(NULLABLE.get_field_index("images"), pa.field("images", pa.string()))
    write_rows(tmp_path / "a.parquet", [row], schema)
    assert f"{tmp_path / 'a.parquet'}: a column has another type" in complaint(tmp_path)


def test_no_rows_at_all_is_an_error(tmp_path):
    write_records(tmp_path / "a.parquet", [])
    assert "holds no rows" in complaint(tmp_path)


def test_only_bad_rows_is_an_error_whatever_is_allowed(tmp_path):
    write_rows(tmp_path / "a.parquet", [GOOD.to_row() | {"question": ""}])
    assert "a.parquet, row 0, question: is empty" in complaint(tmp_path, allowed=1.0)


def test_more_bad_rows_than_allowed_stop_with_rate_key_fields_and_examples(tmp_path):
    rows = [record.to_row() for record in records(20)]
    for number in range(7):
        rows[number] |= {"question": ""} if number < 4 else {"answer": ""}
    path = write_rows(tmp_path / "a.parquet", rows)
    said = complaint(path, allowed=0.3)
    assert "7 of 20 rows cannot be used (35.0%; data.max_bad_fraction allows 30.0%)" in said
    assert "question 4, answer 3" in said
    assert said.count("a.parquet, row ") == 5
    assert len(table_of(path, 0.35).rows) == 13


def test_exactly_the_allowed_fraction_passes():
    bad = [BadRow("f", 1, "id", "is empty")]
    check_bad_fraction("p", bad, total=20, allowed=0.05)
    with pytest.raises(UserError):
        check_bad_fraction("p", bad, total=19, allowed=0.05)
