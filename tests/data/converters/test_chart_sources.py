"""ChartQA and PlotQA: labels stay what the chart reward reads."""

from __future__ import annotations

import json

import pytest
from native_layouts import picture_bytes, put_hub, put_json, put_picture

from mixed_r1_ray.data.converters.charts import chart_answer
from mixed_r1_ray.errors import UserError


def test_chartqa_human_and_augmented_are_two_sources(tmp_path, run):
    place = tmp_path / "ChartQA Dataset/train"
    human = [
        {"imgname": "41.png", "query": "Which year?", "label": "2015"},
        {"imgname": "41.png", "query": "What share?", "label": "23%"},
        {"imgname": "41.png", "query": "Which two?", "label": "[Red, Blue]"},
        {"imgname": "41.png", "query": "Empty?", "label": ""},
    ]
    put_json(place / "train_human.json", human)
    put_json(place / "train_augmented.json", [{"imgname": "41.png", "query": "Most?", "label": "Chile"}])
    put_picture(place / "png/41.png", 50, 40)
    records, skipped = run("chartqa", tmp_path)
    assert {name: record.answer for name, record in records.items()} == {
        "chartqa_human-train-000000": "2015",
        "chartqa_human-train-000001": "23%",
        "chartqa_human-train-000002": "[Red, Blue]",
        "chartqa_augmented-train-000000": "Chile",
    }
    assert {record.source for record in records.values()} == {"chartqa_human", "chartqa_augmented"}
    assert skipped == {"its answer is empty": 1}


def test_chartqa_hub_labels_are_lists(tmp_path, run):
    image = {"bytes": picture_bytes(), "path": None}
    rows = [
        {"image": image, "query": "How many?", "label": ["14"], "human_or_machine": 0},
        {"image": image, "query": "Which?", "label": ["2001", "2002"], "human_or_machine": 1},
    ]
    put_hub(tmp_path / "data/train-00000-of-00003-abc.parquet", rows)
    first, second = run("chartqa", tmp_path)[0].values()
    assert (first.source, first.answer) == ("chartqa_human", "14")
    assert (second.source, json.loads(second.answer)) == ("chartqa_augmented", ["2001", "2002"])


def test_plotqa_numbers_texts_and_yes_no(tmp_path, run):
    answers = [2010.0, 15.23333333334, "Yes", "Brazil", 0, float("nan")]
    pairs = [
        {
            "image_index": 5,
            "qid": str(n),
            "question_string": "What?",
            "answer": answer,
            "template": "data_retrieval",
        }
        for n, answer in enumerate(answers)
    ]
    put_json(tmp_path / "train/qa_pairs_V2.json", {"info": [1], "qa_pairs": pairs})
    put_picture(tmp_path / "train/png/5.png")
    put_picture(tmp_path / "png/5.png", 99, 99)  # of another split
    records, skipped = run("plotqa", tmp_path)
    assert [record.answer for record in records.values()] == ["2010", "15.2333", "Yes", "Brazil", "0"]
    assert {record.image_sizes for record in records.values()} == {((8, 6),)}
    assert skipped == {"its answer is not a finite number": 1}


def test_a_cut_annotation_file_is_named(tmp_path, run):
    put_json(
        tmp_path / "train/qa_pairs.json",
        {"qa_pairs": [{"image_index": 5, "question_string": "?", "answer": 1}]},
    )
    path = tmp_path / "train/qa_pairs.json"
    path.write_text(path.read_text()[:-5])
    with pytest.raises(UserError, match=r"qa_pairs\.json: ends in the middle"):
        run("plotqa", tmp_path)


@pytest.mark.parametrize(
    "label, text", [(True, "Yes"), (1e6, "1000000"), (" a ", "a"), ([["x"], "y"], '["x", "y"]')]
)
def test_labels_as_text(label, text):
    assert chart_answer(label) == text
