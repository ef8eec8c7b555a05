"""COCO Captions, DOCCI, LLaVA detail and ShareGPT4V."""

from __future__ import annotations

import json

from native_layouts import picture_bytes, put_hub, put_json, put_lines, put_picture


def test_coco_captions_of_a_picture_are_golds_of_one_record(tmp_path, run):
    images = [{"id": number, "file_name": f"{number:012d}.jpg"} for number in (9, 25, 30)]
    captions = [(9, "A dog.  "), (25, "A cat."), (9, "A brown\ndog."), (9, "A dog.")]
    annotations = [
        {"image_id": image, "id": number, "caption": text} for number, (image, text) in enumerate(captions)
    ]
    put_json(tmp_path / "annotations/captions_train2017.json", {"images": images, "annotations": annotations})
    for number in (9, 25):
        put_picture(tmp_path / f"train2017/{number:012d}.jpg")
    records, skipped = run("coco_captions", tmp_path)
    assert json.loads(records["coco_captions-train-9"].answer) == {"any_of": ["A dog.", "A brown dog."]}
    assert records["coco_captions-train-25"].answer == "A cat."
    assert skipped == {"has no caption": 1}


def test_coco_captions_hub_form(tmp_path, run):
    row = {"question_id": "9", "image": {"bytes": picture_bytes(), "path": None}, "answer": ["One.", "Two."]}
    put_hub(tmp_path / "data/val-00000-of-00002.parquet", [row])
    (record,) = run("coco_captions", tmp_path, split="val")[0].values()
    assert json.loads(record.answer) == {"any_of": ["One.", "Two."]}


def test_docci_takes_its_own_split(tmp_path, run):
    row = {
        "example_id": "train_00000",
        "split": "train",
        "image_file": "train_00000.jpg",
        "description": "A long one.",
    }
    put_lines(
        tmp_path / "docci_descriptions.jsonlines", row, row | {"example_id": "test_00000", "split": "test"}
    )
    put_picture(tmp_path / "images/train_00000.jpg")
    records, _ = run("docci", tmp_path)
    assert list(records) == ["docci-train-train_00000"]
    assert records["docci-train-train_00000"].answer == "A long one."


def test_llava_detail_loses_the_picture_mark(tmp_path, run):
    turns = [
        {"from": "human", "value": "Write a detailed description.\n<image>"},
        {"from": "gpt", "value": "A bus."},
    ]
    rows = [
        {"id": "000000442786", "image": "000000442786.jpg", "conversations": turns},
        {"id": "000000442787", "image": "000000442787.jpg", "conversations": turns[:1]},
        {"id": "text", "conversations": turns},
    ]
    put_json(tmp_path / "detail_23k.json", rows)
    put_picture(tmp_path / "train2014/COCO_train2014_000000442786.jpg", 22, 11)
    records, skipped = run("llava_detail", tmp_path)
    (record,) = records.values()
    assert (record.question, record.answer) == ("Write a detailed description.", "A bus.")
    assert skipped == {"does not begin with a question and an answer": 1, "has no picture": 1}


def test_sharegpt4v_pictures_lie_where_they_say(tmp_path, run):
    turns = [{"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": "A map."}]
    rows = [
        {"id": "sa_1", "image": f"{folder}/sa_1.jpg", "conversations": turns}
        for folder in ("sam/images", "../x")
    ]
    put_json(tmp_path / "sharegpt4v_instruct_gpt4-vision_cap100k.json", rows)
    put_picture(tmp_path / "sam/images/sa_1.jpg")
    put_picture(tmp_path.parent / "x/sa_1.jpg")
    records, skipped = run("sharegpt4v", tmp_path)
    assert [record.question for record in records.values()] == ["What is this?"]
    assert skipped == {"its picture's path leads out of the picture folder": 1}
