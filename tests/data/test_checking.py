"""`check`: every fault is named by file and row; --drop keeps what is good and says what it dropped."""

from __future__ import annotations

import io
import json
import re
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mixed_r1_ray.config_load import load_config
from mixed_r1_ray.data import check_plan
from mixed_r1_ray.data.__main__ import main
from mixed_r1_ray.data.checking import check
from mixed_r1_ray.data.reader import RecordTable
from mixed_r1_ray.data.record_check import RecordPart, check_rows
from mixed_r1_ray.data.schema import SCHEMA, Record, write_records
from mixed_r1_ray.data.tasks import ray_for_data
from mixed_r1_ray.errors import UserError

NULLABLE = pa.schema([field.with_nullable(True) for field in SCHEMA])


@pytest.fixture(scope="module")
def cluster():
    with ray_for_data(num_cpus=1):
        yield


def picture(
    width: int = 40, height: int = 30, file_format: str = "JPEG", mode: str = "RGB", **options
) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(buffer, file_format, **options)
    return buffer.getvalue()


def sixteen_bit() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((30, 40), 40_000, np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = picture()
GOOD = Record("good", "shapes", "matching", (PICTURE,), ((40, 30),), "Is it red?", "yes")


def bomb() -> bytes:
    """A PNG header of 20,001 x 20,001 pixels; the pixels do not matter, for nobody may read them."""
    data = bytearray(picture(file_format="PNG"))
    data[16:24] = (20_001).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def fault_of(tmp_path: Path, **changes) -> tuple[str, str] | None:
    """(field, reason) of GOOD with these fields changed; None where it is still good."""
    row = GOOD.to_row() | changes
    pq.write_table(pa.Table.from_pylist([row], schema=NULLABLE), tmp_path / "one.parquet")
    (checked,) = check_rows(RecordPart(tmp_path / "one.parquet", 0, 1, 0, 1), {}, None)
    return checked.fault and (checked.fault.field, checked.fault.reason)


def images(*data: bytes) -> dict:
    return {"images": [{"bytes": content, "path": None} for content in data], "image_sizes": []}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        images(picture(mode="CMYK")),
        images(sixteen_bit()),
        images(picture(file_format="GIF", save_all=True, append_images=[Image.new("RGB", (40, 30), "red")])),
        images(),
        images(PICTURE) | {"reward_type": "iou", "answer": "[1, 2, 30, 20.5]"},
        {"choices": ["a cat", "a dog"], "question": "Which? (A) a cat (B) a dog", "answer": "B"},
        {"reward_type": "chart", "answer": "2015"},
    ],
)
def test_good_records_have_no_fault(tmp_path, changes):
    assert fault_of(tmp_path, **changes) is None


@pytest.mark.parametrize(
    "changes, field, reason",
    [
        (images(PICTURE[: len(PICTURE) // 2]), "images", "picture 0 cannot be decoded"),
        (images(PICTURE, b"<html>404</html>"), "images", "picture 1 cannot be decoded"),
        (images(picture(1, 1)), "images", "has 1x1 pixels; 8 a side are the least"),
        (images(bomb()), "images", "picture 0 "),
        (
            {"image_sizes": [{"width": 30, "height": 40}]},
            "image_sizes",
            r"says \[\(30, 40\)\], the pictures have \[\(40, 30\)\]",
        ),
        (images(b""), "images", "picture 0 holds no bytes"),
        ({"images": None}, "images", "is null"),
        ({"answer": ""}, "answer", "is empty"),
        ({"answer": None}, "answer", "is empty"),
        ({"question": "  "}, "question", "is empty"),
        ({"reward_type": "exact"}, "reward_type", "'exact' is none of matching"),
        ({"choices": ["a cat", "a dog"], "answer": "a cow"}, "answer", "cow"),
        ({"reward_type": "chart", "answer": "nan"}, "answer", "nan"),
        ({"reward_type": "iou", "answer": "[30, 2, 1, 20]"}, "answer", "x1 < x2"),
        ({"reward_type": "iou", "answer": "[1, 2, NaN, 20]"}, "answer", ""),
        ({"reward_type": "iou", "answer": "[1, 2, 60, 20]"}, "answer", "outside the image, 40 x 30"),
        (
            images(PICTURE) | {"reward_type": "iou", "answer": "[1, 2, 60, 20]"},
            "answer",
            "outside the image, 40 x 30",
        ),
        (images() | {"reward_type": "iou", "answer": "[1, 2, 60, 20]"}, "images", "a box is in no picture"),
        ({"meta": '{"pass_rate": NaN}'}, "meta", "holds NaN"),
        ({"meta": "{"}, "meta", "is not JSON"),
        ({"question": "Is it red? Answer: yes"}, "question", "gives its answer away"),
    ],
)
def test_each_fault_is_named_by_field_and_reason(tmp_path, changes, field, reason):
    found = fault_of(tmp_path, **changes)
    assert found is not None and found[0] == field
    assert re.search(reason, found[1]), found[1]


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    _, reason = fault_of(tmp_path, **images(bomb()))
    assert "20001x20001" in reason or "400040001" in reason


def test_text_that_is_not_utf8_costs_its_row_only(tmp_path):
    table = pa.Table.from_pylist([replace(GOOD, id=f"r{n}").to_row() for n in range(3)], schema=NULLABLE)
    broken = pa.array([b"fine", b"gr\xfcn", b"fine"]).view(pa.string())
    column = table.schema.get_field_index("question")
    pq.write_table(table.set_column(column, "question", broken), tmp_path / "a.parquet")
    checked = list(check_rows(RecordPart(tmp_path / "a.parquet", 0, 1, 0, 3), {}, None))
    assert [row.fault and (row.fault.row, row.fault.reason) for row in checked] == [
        None,
        (1, "is not UTF-8"),
        None,
    ]


def write_set(folder: Path) -> None:
    """Two shards and a broken one: a duplicate across shards, a bad picture, an answer given away."""
    bad_picture = replace(GOOD, id="cut", source="photos", images=(PICTURE[:300],))
    write_records(folder / "a.parquet", [GOOD, bad_picture, replace(GOOD, id="other")])
    told = replace(GOOD, id="told", question="Is it red? Answer: yes")
    write_records(folder / "b.parquet", [told, replace(GOOD, source="photos"), replace(GOOD, id="last")])
    write_records(folder / "c.parquet", [replace(GOOD, id="never read")])
    content = (folder / "c.parquet").read_bytes()
    (folder / "c.parquet").write_bytes(content[: len(content) // 2])


def test_faults_are_counted_by_source_and_named(tmp_path, cluster):
    write_set(tmp_path)
    summary = check(tmp_path)
    assert summary.sources == {"shapes": 4, "photos": 2}
    assert summary.faulty["shapes"] == 1 and summary.faulty["photos"] == 2
    (duplicate,) = summary.named["photos", "id"]
    assert (duplicate.file, duplicate.row) == ("b.parquet", 1)
    assert duplicate.reason == "'good' stands in a.parquet, row 0 too"
    assert [fault.id for fault in summary.named["photos", "images"]] == ["cut"]
    assert [fault.file for fault in summary.named["", "file"]] == ["c.parquet"]


def test_drop_keeps_what_is_good_and_says_what_went(tmp_path, cluster, monkeypatch):
    monkeypatch.setattr(check_plan, "PART_ROWS", 2)
    write_set(tmp_path / "in")
    check(tmp_path / "in", drop=tmp_path / "out")
    table = RecordTable(str(tmp_path / "out"), max_bad_fraction=0.0, cache_dir=tmp_path / "cache")
    assert [table.record(index).id for index in range(len(table.rows))] == ["good", "other", "last"]
    assert table.record(0) == GOOD
    dropped = [json.loads(line) for line in (tmp_path / "out/dropped.jsonl").read_text().splitlines()]
    assert {(line["file"], line["row"], line["id"], line["field"]) for line in dropped} == {
        ("a.parquet", 1, "cut", "images"),
        ("b.parquet", 0, "told", "question"),
        ("b.parquet", 1, "good", "id"),
        ("c.parquet", None, "", "file"),
    }
    assert check(tmp_path / "out").kinds == {}


def test_a_run_that_was_killed_goes_on_with_the_same_result(tmp_path, cluster):
    write_set(tmp_path / "in")
    check(tmp_path / "in", drop=tmp_path / "whole")
    check(tmp_path / "in", drop=tmp_path / "out")
    kept = (tmp_path / "out/a-00000000.parquet").stat().st_ino
    (tmp_path / "out/b-00000000.parquet").unlink()
    (tmp_path / "out/dropped.jsonl").unlink()
    check(tmp_path / "in", drop=tmp_path / "out")
    for path in (tmp_path / "whole").iterdir():
        assert path.is_dir() or (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    assert (tmp_path / "out/a-00000000.parquet").stat().st_ino == kept


def test_prompts_that_do_not_fit_are_faults(tmp_path, cluster, tiny_checkpoints):
    write_records(tmp_path / "a.parquet", [GOOD, replace(GOOD, id="long", question="red " * 200)])
    words = [
        f"model.path={tiny_checkpoints['internvl']}",
        "model.max_length=200",
        "rollout.max_new_tokens=64",
    ]
    summary = check(tmp_path, load_config(words, conf_needed=False))
    (fault,) = summary.named["shapes", "question"]
    assert fault.id == "long" and "leaves 136" in fault.reason


def test_the_quickstarts_model_is_built_where_lengths_are_asked_for(tmp_path, cluster):
    write_records(tmp_path / "a.parquet", [GOOD, replace(GOOD, id="long", question="red " * 200)])
    sizes = ["tiny.warm_start_steps=1", "tiny.train_per_type=4", "tiny.eval_per_type=4", "tiny.threads=1"]
    words = ["conf=quickstart", f"tiny.cache_dir={tmp_path / 'cache'}", *sizes]
    summary = check(tmp_path / "a.parquet", load_config(words))
    (fault,) = summary.named["shapes", "question"]
    assert fault.id == "long" and "leaves 208" in fault.reason  # 256 - 48


def test_a_missing_column_and_one_of_another_type_are_named(tmp_path, cluster):
    write_records(tmp_path / "a.parquet", [GOOD])
    table = pq.read_table(tmp_path / "a.parquet")
    pq.write_table(table.drop_columns(["answer"]), tmp_path / "b.parquet")
    numbers = table.drop_columns(["images"]).append_column("images", pa.array([7]))
    pq.write_table(numbers, tmp_path / "c.parquet")
    reasons = [fault.reason for fault in check(tmp_path).named["", "file"]]
    assert "misses the column(s) answer" in reasons[0] and "column images is int64" in reasons[1]


def test_exit_codes_and_the_table(tmp_path, cluster, capsys):
    write_set(tmp_path / "in")
    assert main(["check", str(tmp_path / "in")]) == 1
    printed = capsys.readouterr().out
    assert "b.parquet, row 0 (told)" in printed and "gives its answer away" in printed
    assert main(["check", str(tmp_path / "in"), "--drop", str(tmp_path / "out")]) == 0
    assert main(["check", str(tmp_path / "out")]) == 0
    assert main(["check", str(tmp_path / "in"), "--drop", str(tmp_path / "in")]) == 2
    assert "is the folder that is read" in capsys.readouterr().err
    assert main(["check", str(tmp_path / "in"), "model.max_length=9"]) == 2


def test_a_folder_without_any_record_is_an_error(tmp_path, cluster):
    with pytest.raises(UserError, match=r"holds no \*\.parquet file"):
        check(tmp_path)
