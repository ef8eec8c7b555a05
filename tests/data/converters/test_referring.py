"""RefCOCO, RefCOCO+ and RefCOCOg: JSON refs, hub forms, and the pickle that is not read."""

from __future__ import annotations

import json
import pickle

import pytest
from native_layouts import picture_bytes, put_hub, put_json, put_picture

from mixed_r1_ray.errors import UserError

SENTENCES = [
    {"raw": "Left  Dog!", "sent": "left dog", "sent_id": 1, "tokens": ["left", "dog"]},
    {"raw": "left dog", "sent": "left dog", "sent_id": 2, "tokens": ["left", "dog"]},
    {"raw": "the brown one", "sent": "the brown one", "sent_id": 3, "tokens": []},
]
REF = {
    "ref_id": 0,
    "ann_id": 17,
    "image_id": 581857,
    "category_id": 1,
    "split": "train",
    "sent_ids": [1, 2, 3],
    "file_name": "COCO_train2014_000000581857_16.jpg",
    "sentences": SENTENCES,
}
INSTANCES = {
    "images": [{"id": 581857, "file_name": "COCO_train2014_000000581857.jpg", "width": 100, "height": 80}],
    "annotations": [{"id": 17, "image_id": 581857, "bbox": [10.5, 20.25, 30.0, 40.126], "category_id": 1}],
}


def test_each_different_sentence_makes_a_record_with_its_box_as_corners(tmp_path, run):
    lost = REF | {"ref_id": 1, "ann_id": 99}
    put_json(tmp_path / "refcoco/refs(unc).json", [REF, lost, REF | {"ref_id": 2, "split": "testA"}])
    put_json(tmp_path / "refcoco/instances.json", INSTANCES)
    put_picture(tmp_path / "train2014/COCO_train2014_000000581857.jpg", 100, 80)
    records, skipped = run("refcoco", tmp_path)
    assert list(records) == ["refcoco-train-0-0", "refcoco-train-0-1"]
    assert [
        "left dog" in records["refcoco-train-0-0"].question,
        "the brown one" in records["refcoco-train-0-1"].question,
    ]
    assert {record.answer for record in records.values()} == {"[10.5, 20.25, 40.5, 60.38]"}
    assert skipped == {"its object is not in instances.json": 1}
    assert list(run("refcoco", tmp_path, split="testA")[0]) == ["refcoco-testA-2-0", "refcoco-testA-2-1"]


def test_the_pickle_is_refused_and_never_loaded(tmp_path, run):
    place = tmp_path / "refcoco+"
    place.mkdir()
    (place / "refs(unc).p").write_bytes(pickle.dumps([REF]))
    with pytest.raises(UserError, match=r"refs\(unc\)\.p: is a pickle.*refs\(unc\)\.json"):
        run("refcoco+", tmp_path)


def test_refcocog_prefers_the_split_that_shares_no_pictures(tmp_path, run):
    put_json(tmp_path / "refcocog/refs(google).json", [REF | {"ref_id": 5}])
    put_json(tmp_path / "refcocog/refs(umd).json", [REF | {"ref_id": 6}])
    put_json(tmp_path / "refcocog/instances.json", INSTANCES)
    put_picture(tmp_path / "images/mscoco/images/train2014/COCO_train2014_000000581857.jpg", 100, 80)
    assert list(run("refcocog", tmp_path)[0]) == ["refcocog-train-6-0", "refcocog-train-6-1"]


def test_missing_instances_are_named(tmp_path, run):
    put_json(tmp_path / "refs(unc).json", [REF])
    with pytest.raises(UserError, match=r"instances\.json: is not there"):
        run("refcoco", tmp_path)


def test_hub_form_with_corners_and_pictures_elsewhere(tmp_path, run):
    row = {
        "ref_id": 7,
        "sentences": SENTENCES,
        "image_path": "coco/train2014/COCO_train2014_000000581857.jpg",
        "bbox": [10.0, 20.0, 40.0, 60.0],
        "split": "train",
    }
    put_hub(tmp_path / "hub/data/train-00000-of-00001-x.parquet", [row])
    put_picture(tmp_path / "pictures/train2014/COCO_train2014_000000581857.jpg", 100, 80)
    records, _ = run("refcoco", tmp_path / "hub", images=tmp_path / "pictures")
    assert [json.loads(record.answer) for record in records.values()] == [[10, 20, 40, 60]] * 2


def test_hub_form_with_width_and_height_and_pictures_inside(tmp_path, run):
    row = {
        "question_id": "000000581857_0",
        "image": {"bytes": picture_bytes(100, 80), "path": "x.jpg"},
        "answer": ["left dog", "the brown one"],
        "bbox": [10.0, 20.0, 30.0, 40.0],
    }
    put_hub(tmp_path / "data/val-00000-of-00001.parquet", [row])
    records, _ = run("refcoco_plus", tmp_path, split="val")
    assert list(records) == ["refcoco_plus-val-000000581857_0-0", "refcoco_plus-val-000000581857_0-1"]
    assert [json.loads(record.answer) for record in records.values()] == [[10, 20, 40, 60]] * 2


def test_split_test_is_not_split_test_a(tmp_path, run):
    row = {
        "question_id": "1",
        "image": {"bytes": picture_bytes(100, 80), "path": None},
        "answer": ["dog"],
        "bbox": [1.0, 2.0, 3.0, 4.0],
    }
    for name, question_id in (("test", "9"), ("testA", "10"), ("testB", "11")):
        put_hub(tmp_path / f"data/{name}-00000-of-00001.parquet", [row | {"question_id": question_id}])
    assert list(run("refcoco", tmp_path, split="test")[0]) == ["refcoco-test-9-0"]
    assert list(run("refcoco", tmp_path, split="testA")[0]) == ["refcoco-testA-10-0"]
