"""One's own JSON lines and Parquet, with columns named on the command line."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from native_layouts import picture_bytes, put_hub, put_lines, put_picture

from mixed_r1_ray.errors import UserError

MAPPING = {"question": "prompt", "answer": "label", "images": "file"}
CONSTANTS = {"reward_type": "chart", "source": "mine"}


def test_columns_are_mapped_and_constants_fill_in(tmp_path, run):
    put_lines(
        tmp_path / "rows.jsonl",
        {"prompt": "How many?", "label": 12, "file": "a.png"},
        {"prompt": "How many?", "label": 0.5, "file": ["a.png", "a.png"], "id": "second"},
        {"prompt": "How many?", "label": None, "file": "a.png"},
        {"prompt": "How many?", "label": 3, "file": "gone.png"},
        '"text"',
    )
    put_picture(tmp_path / "pictures/a.png", 9, 7)
    records, skipped = run(
        "jsonl", tmp_path, images=tmp_path / "pictures", mapping=MAPPING, constants=CONSTANTS
    )
    assert {name: record.answer for name, record in records.items()} == {
        "mine-train-rows-000000": "12",
        "second": "0.5",
    }
    assert len(records["second"].images) == 2 and records["second"].image_sizes == ((9, 7), (9, 7))
    assert skipped == {
        "has no answer (column 'label')": 1,
        "its picture is not there": 1,
        "is no JSON object": 1,
    }


def test_lines_of_another_encoding_are_left_out_not_the_file(tmp_path, run):
    good = json.dumps({"question": "Grün?", "answer": "yes"}, ensure_ascii=False)
    content = good.encode() + b"\n" + good.encode("latin-1") + b"\n"
    (tmp_path / "rows.jsonl").write_bytes(b"\xef\xbb\xbf" + content)
    records, skipped = run("jsonl", tmp_path, constants={"reward_type": "matching"})
    assert [record.question for record in records.values()] == ["Grün?"] and skipped == {"is not UTF-8": 1}
    assert next(iter(records.values())).images == ()


def test_choices_are_listed_unless_the_question_does(tmp_path, run):
    rows = [
        {"question": "Which?", "choices": ["red", "blue"], "answer": "blue"},
        {"question": "Is it red or blue?", "choices": ["red", "blue"], "answer": "A"},
    ]
    put_lines(tmp_path / "rows.jsonl", *rows)
    first, second = run("jsonl", tmp_path, constants={"reward_type": "matching"})[0].values()
    assert first.question == "Which?\n(A) red\n(B) blue" and second.question == "Is it red or blue?"


def test_boxes_stay_lists_in_parquet_and_pictures_may_be_inside(tmp_path, run):
    image = {"bytes": picture_bytes(90, 60), "path": None}
    rows = [{"question": "Where?", "answer": [[1.0, 2.0, 30.0, 40.0]], "image": image, "reward_type": "iou"}]
    put_hub(tmp_path / "deep/any_name.parquet", rows * 5)
    records, _ = run("parquet", tmp_path, constants={"source": "boxes"})
    assert len(records) == 5 and {record.source for record in records.values()} == {"boxes"}
    assert json.loads(next(iter(records.values())).answer) == [[1, 2, 30, 40]]


def test_faults_of_the_call_are_named(tmp_path, run):
    put_lines(tmp_path / "rows.jsonl", {"question": "?"})
    pq.write_table(pa.table({"question": ["?"], "answer": ["1"]}), tmp_path / "rows.parquet")
    with pytest.raises(UserError, match="prompt: is no field of a record; there are id, source"):
        run("jsonl", tmp_path, mapping={"prompt": "question"})
    with pytest.raises(
        UserError, match=r"rows\.parquet: misses the column\(s\) text of parquet; it has question, answer"
    ):
        run("parquet", tmp_path, mapping={"question": "text"})
    with pytest.raises(UserError, match="--map and --set are for jsonl and parquet"):
        run("vsr", tmp_path, mapping={"question": "text"})
    with pytest.raises(UserError, match="vsrr: no converter has this name; there are scienceqa"):
        run("vsrr", tmp_path)
    with pytest.raises(UserError, match=r"holds neither train\.jsonl nor train-\*\.parquet"):
        run("vsr", tmp_path)


def test_a_cut_parquet_file_is_named(tmp_path, run):
    put_hub(tmp_path / "rows.parquet", [{"question": "?", "answer": "1"}])
    data = (tmp_path / "rows.parquet").read_bytes()
    (tmp_path / "rows.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"rows\.parquet: cannot be read .*cut short"):
        run("parquet", tmp_path)


def test_text_of_another_encoding_in_parquet_stops_with_the_files_name(tmp_path, run):
    broken = pa.array([b"gr\xfcn"]).view(pa.string())
    pq.write_table(pa.table({"question": broken, "answer": ["1"]}), tmp_path / "rows.parquet")
    with pytest.raises(UserError, match=r"rows\.parquet: cannot be read"):
        run("parquet", tmp_path, constants={"reward_type": "chart"})


def test_arrow_files_of_save_to_disk_are_read(tmp_path, run):
    from datasets import Dataset

    rows = [
        {"image_path": f"{n}.jpg", "ref_id": n, "sentences": [{"sent": "dog"}], "bbox": [1.0, 2.0, 5.0, 6.0]}
        for n in range(3)
    ]
    Dataset.from_list(rows).save_to_disk(str(tmp_path / "train"))
    for number in range(3):
        put_picture(tmp_path / f"train2014/{number}.jpg")
    records, _ = run("refcoco", tmp_path)
    assert list(records) == ["refcoco-train-0-0", "refcoco-train-1-0", "refcoco-train-2-0"]


def test_pictures_that_cannot_be_used_are_one_reason_whatever_is_wrong_with_each(tmp_path, run):
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(picture_bytes()[:number] + b"html")
    put_lines(
        tmp_path / "rows.jsonl", *({"question": "?", "answer": "1", "image": f"{n}.png"} for n in range(4))
    )
    records, skipped = run("jsonl", tmp_path, constants={"reward_type": "chart"})
    assert records == {} and skipped == {"its picture cannot be used": 4}
