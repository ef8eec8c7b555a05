from __future__ import annotations

import io
import json
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mixed_r1_ray.data import synthetic
from mixed_r1_ray.data.schema import SCHEMA, Record, write_records
from mixed_r1_ray.data.synthetic import COLOURS, build_quickstart_data, generate_split

SHAPES_RGB = {name: np.array(rgb) for name, rgb in COLOURS.items()}


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return build_quickstart_data(tmp_path_factory.mktemp("data"), seed=3, train_per_type=40, eval_per_type=24)


def read(path):
    return [Record.from_row(row) for row in pq.read_table(path).to_pylist()]


def pixels(record):
    return np.array(Image.open(io.BytesIO(record.images[0])))


def by_source(records, source):
    found = [record for record in records if record.source == source]
    assert found
    return found


def test_each_split_has_the_asked_number_of_records_of_each_type(paths):
    for path, per_type in zip(paths, (40, 24)):
        assert Counter(record.reward_type for record in read(path)) == dict.fromkeys(
            ("matching", "chart", "iou", "open_ended"), per_type
        )


def test_splits_share_no_picture_and_no_id(paths):
    train, held_out = ([(record.id, pixels(record).tobytes()) for record in read(path)] for path in paths)
    for part in range(2):
        assert not {row[part] for row in train} & {row[part] for row in held_out}


def test_a_picture_seen_before_is_drawn_again():
    seen: set[bytes] = set()
    first = [record.images for record in generate_split("train", 0, 8, seen)]
    again = [record.images for record in generate_split("train", 0, 8, seen)]
    assert not set(first) & set(again)


def test_digit_scans_of_the_splits_are_disjoint(monkeypatch):
    """Blank scans, each with its own brightness: what a picture was made from can be read off it."""
    count = 1797
    scans = np.stack([np.full((8, 8), 16 * index / count) for index in range(count)])
    monkeypatch.setattr(synthetic, "_scans", lambda: (scans, np.zeros(count, dtype=int)))
    darkest = {}
    for split in ("train", "eval"):
        records = [
            record for record in generate_split(split, 0, 60, set()) if record.source.startswith("digits")
        ]
        darkest[split] = [int(pixels(record).min()) for record in records]
    # The held-out scans are the last, so the darkest.
    assert min(darkest["train"]) >= max(darkest["eval"]) - 1


def test_the_same_seed_makes_the_same_records_and_another_does_not():
    first, again, other = (list(generate_split("train", seed, 10, set())) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_data_is_made_once(tmp_path, monkeypatch):
    paths = build_quickstart_data(tmp_path, 0, 4, 4)
    monkeypatch.setattr(synthetic, "generate_split", lambda *_: pytest.fail("made again"))
    assert build_quickstart_data(tmp_path, 0, 4, 4) == paths
    with pytest.raises(pytest.fail.Exception):
        build_quickstart_data(tmp_path, 1, 4, 4)


def test_datasets_reads_the_file_and_decodes_its_pictures(paths):
    from datasets import Image as ImageFeature
    from datasets import List, load_dataset

    dataset = load_dataset(
        "parquet", data_files=str(paths[1]), split="train", cache_dir=str(paths[1].parent / "cache")
    )
    dataset = dataset.cast_column("images", List(ImageFeature()))
    assert dataset[0]["images"][0].size == (112, 112)


def test_a_record_survives_the_round_trip(tmp_path):
    record = Record("1", "s", "matching", (b"abc",), ((3, 4),), "q?", "B", ("a", "B"), '{"k": 1}')
    write_records(tmp_path / "new" / "file.parquet", [record])
    assert read(tmp_path / "new" / "file.parquet") == [record]
    assert pq.read_schema(tmp_path / "new" / "file.parquet").equals(SCHEMA)


def test_an_interrupted_write_leaves_nothing_behind(tmp_path):
    def records():
        yield Record("1", "s", "matching", (), (), "q", "yes")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_records(tmp_path / "file.parquet", records())
    assert list(tmp_path.iterdir()) == []


def test_boxes_are_the_extent_of_the_shape_that_is_asked_for(paths):
    for record in by_source(read(paths[0]), "shapes_box"):
        colour = record.question.split()[3]
        rows, columns = np.nonzero((pixels(record) == SHAPES_RGB[colour]).all(-1))
        extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert np.abs(np.array(json.loads(record.answer)) - extent).max() <= 1


def test_bars_are_as_high_as_their_values(paths):
    for record in by_source(read(paths[0]), "charts_value"):
        colour = record.question.split()[6]
        rows, _ = np.nonzero((pixels(record) == SHAPES_RGB[colour]).all(-1))
        assert (105 - rows.min()) / 98 * 100 == pytest.approx(int(record.answer), abs=1.1)


def place_of(record, colour):
    """Where the pixels of `colour` are, in words."""
    rows, columns = np.nonzero((pixels(record) == SHAPES_RGB[colour]).all(-1))
    return f"{'top' if rows.mean() < 56 else 'bottom'} {'left' if columns.mean() < 56 else 'right'}"


def test_yes_no_is_balanced_and_true_of_the_picture():
    records = by_source(generate_split("train", 0, 400, set()), "shapes_yes_no")
    assert 0.35 < Counter(record.answer for record in records)["yes"] / len(records) < 0.65
    for record in records:
        words = record.question.rstrip("?").split()
        assert (record.answer == "yes") == (place_of(record, words[2]) == " ".join(words[-2:]))


def test_multiple_choice_about_a_place_is_true_of_the_picture(paths):
    for record in by_source(read(paths[0]), "shapes_choice"):
        assert record.answer == place_of(record, record.question.split()[5])


def test_the_gold_option_is_among_the_choices_and_all_are_in_the_question(paths):
    for source in ("shapes_choice", "digits_choice"):
        for record in by_source(read(paths[0]), source):
            assert record.choices.count(record.answer) == 1
            assert all(f") {choice}" in record.question for choice in record.choices)
