"""`mix`: the same recipe over the same files gives the same bytes, however often it is killed."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mixed_r1_ray.data import mixing
from mixed_r1_ray.data.manifest import read_manifest
from mixed_r1_ray.data.mixing import build_mixture, main
from mixed_r1_ray.data.reader import RecordTable
from mixed_r1_ray.data.recipe import load_recipe
from mixed_r1_ray.data.schema import SCHEMA, Record, write_records
from mixed_r1_ray.errors import UserError

RECIPE = """
name: two types
size: 60
held_out: 6
shard_records: 16
types:
  matching:
    quota: 0.5
    sources:
      vsr: {license: Apache-2.0, quota: 20}
      ai2d: {license: CC BY-SA 4.0}
  iou:
    sources:
      refcoco: {license: none, url: "https://example.org/refcoco"}
"""


def picture(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()


def records(source: str, count: int, first: int = 0) -> list[Record]:
    """Two neighbours share a picture; boxes for refcoco, yes or no for the others."""
    boxes = source == "refcoco"
    return [
        Record(
            id=f"{source}-{number}",
            source=source,
            reward_type="iou" if boxes else "matching",
            images=(picture(number // 2),),
            image_sizes=((16, 12),),
            question=f"Question {number} of {source}?",
            answer="[1, 2, 9, 10]" if boxes else ("yes", "no")[number % 2],
            meta=json.dumps({"pass_rate": number % 11 / 10}),
        )
        for number in range(first, first + count)
    ]


def recipe(tmp_path: Path, text: str = RECIPE):
    (tmp_path / "recipe.yaml").write_text(text)
    return load_recipe(str(tmp_path / "recipe.yaml"))


@pytest.fixture
def inputs(tmp_path) -> list[Path]:
    """Three folders, one a source; ai2d in two files."""
    folders = [tmp_path / "in" / source for source in ("vsr", "ai2d", "refcoco")]
    write_records(folders[0] / "a.parquet", records("vsr", 40))
    write_records(folders[1] / "a.parquet", records("ai2d", 30))
    write_records(folders[1] / "b.parquet", records("ai2d", 30, first=30))
    write_records(folders[2] / "a.parquet", records("refcoco", 80))
    return folders


def shards(folder: Path) -> dict[str, str]:
    """sha256 by file name, of both splits."""
    return {
        f"{path.parent.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("*/*.parquet"))
    }


def read(folder: Path) -> list[Record]:
    table = RecordTable(str(folder), 0.0, folder.parent / "cache")
    return [table.record(index) for index in range(len(table.rows))]


def test_quotas_are_met_and_records_are_copied_whole(tmp_path, inputs):
    build_mixture(recipe(tmp_path), inputs, tmp_path / "out")
    train, held_out = read(tmp_path / "out" / "train"), read(tmp_path / "out" / "held_out")
    originals = {one.id: one for one in [*records("vsr", 40), *records("ai2d", 60), *records("refcoco", 80)]}
    assert all(one == originals[one.id] for one in [*train, *held_out])
    assert len({one.id for one in [*train, *held_out]}) == 66
    count = lambda source: sum(one.source == source for one in [*train, *held_out])  # noqa: E731
    assert {source: count(source) for source in ("vsr", "ai2d", "refcoco")} == {
        "vsr": 22,
        "ai2d": 11,
        "refcoco": 33,
    }
    assert not {one.images for one in train} & {one.images for one in held_out}
    assert len(held_out) == 6


def test_order_and_names_of_inputs_do_not_matter(tmp_path, inputs):
    build_mixture(recipe(tmp_path), inputs, tmp_path / "one")
    (inputs[1] / "a.parquet").rename(inputs[1] / "z.parquet")
    inputs[2].rename(tmp_path / "in" / "0")
    build_mixture(recipe(tmp_path), [tmp_path / "in" / "0", inputs[1], inputs[0]], tmp_path / "two")
    assert shards(tmp_path / "one") == shards(tmp_path / "two")
    assert len(shards(tmp_path / "one")) == 5  # 60 records in shards of 16, and one held-out shard


def test_the_draw_does_not_depend_on_how_rows_are_spread_over_files(tmp_path, inputs):
    build_mixture(recipe(tmp_path), inputs, tmp_path / "one")
    everything = [*records("refcoco", 80), *records("ai2d", 60), *records("vsr", 40)]
    write_records(tmp_path / "all.parquet", reversed(everything))
    build_mixture(recipe(tmp_path), [tmp_path / "all.parquet"], tmp_path / "two")
    for split in ("train", "held_out"):
        one, two = ({record.id for record in read(tmp_path / name / split)} for name in ("one", "two"))
        assert one == two


def test_another_seed_draws_other_records(tmp_path, inputs):
    build_mixture(recipe(tmp_path), inputs, tmp_path / "one")
    build_mixture(recipe(tmp_path, RECIPE + "seed: 1\n"), inputs, tmp_path / "two")
    one, two = ({record.id for record in read(tmp_path / name / "train")} for name in ("one", "two"))
    assert one != two and len(one) == len(two)


def test_the_manifest_names_every_shard_with_its_hash_and_count(tmp_path, inputs):
    build_mixture(recipe(tmp_path), inputs, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    listed = {shard["file"]: shard for split in manifest["shards"].values() for shard in split}
    assert {name: shard["sha256"] for name, shard in listed.items()} == shards(tmp_path / "out")
    assert sum(shard["records"] for shard in manifest["shards"]["train"]) == 60
    recipe_text = (tmp_path / "out" / "recipe.yaml").read_bytes()
    assert manifest["recipe_sha256"] == hashlib.sha256(recipe_text).hexdigest()
    assert {(row["source"], row["found"], row["train"] + row["held_out"]) for row in manifest["taken"]} == {
        ("vsr", 40, 22),
        ("ai2d", 60, 11),
        ("refcoco", 80, 33),
    }


def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been(tmp_path, inputs, monkeypatch):
    build_mixture(recipe(tmp_path), inputs, tmp_path / "whole")
    written = []

    class Dies(mixing.ShardWriter):
        def add_table(self, table):
            if len(written) == 2:
                raise KeyboardInterrupt
            written.append(self.path)
            super().add_table(table)

    with monkeypatch.context() as patched:
        patched.setattr(mixing, "ShardWriter", Dies)
        with pytest.raises(KeyboardInterrupt):
            build_mixture(recipe(tmp_path), inputs, tmp_path / "out")
    assert read_manifest(tmp_path / "out") is None
    assert len(shards(tmp_path / "out")) == 2
    times = {path: path.stat().st_mtime_ns for path in written}
    build_mixture(recipe(tmp_path), inputs, tmp_path / "out")
    assert shards(tmp_path / "out") == shards(tmp_path / "whole")
    assert {path: path.stat().st_mtime_ns for path in written} == times
    manifests = [(tmp_path / name / "manifest.json").read_text() for name in ("out", "whole")]
    assert manifests[0] == manifests[1]
    assert (tmp_path / "out" / "README.md").read_text() == (tmp_path / "whole" / "README.md").read_text()


def test_a_finished_mixture_is_left_alone_and_a_damaged_shard_is_written_again(tmp_path, inputs):
    said: list[str] = []
    out = tmp_path / "out"
    build_mixture(recipe(tmp_path), inputs, out)
    first = shards(out)
    build_mixture(recipe(tmp_path), inputs, out, said.append)
    assert "finished already" in said[0]
    damaged = out / "train" / "train-00001-of-00004.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-9] + b"123456789")
    build_mixture(recipe(tmp_path), inputs, out, said.append)
    assert str(damaged) in said[1] and "differs" in said[1]
    assert shards(out) == first


def test_another_recipe_does_not_overwrite_a_mixture(tmp_path, inputs):
    build_mixture(recipe(tmp_path), inputs, tmp_path / "out")
    before = shards(tmp_path / "out")
    with pytest.raises(UserError, match="holds two types, of another recipe"):
        build_mixture(recipe(tmp_path, RECIPE + "seed: 1\n"), inputs, tmp_path / "out")
    assert shards(tmp_path / "out") == before


def test_another_plan_leaves_nothing_of_an_unfinished_one(tmp_path, inputs):
    build_mixture(recipe(tmp_path), inputs, tmp_path / "out")
    (tmp_path / "out" / "manifest.json").unlink()
    other = recipe(tmp_path, RECIPE.replace("held_out: 6", "").replace("size: 60", "size: 40"))
    manifest = build_mixture(other, inputs, tmp_path / "out")
    listed = {shard["file"] for split in manifest.shards.values() for shard in split}
    assert set(shards(tmp_path / "out")) == listed and len(listed) == 3


def test_nothing_that_fits_is_an_error(tmp_path, inputs):
    with pytest.raises(UserError, match="no record fits the recipe.*vsr is not in the recipe': 40"):
        build_mixture(recipe(tmp_path, VSR.replace("vsr", "okvqa")), inputs[:1], tmp_path / "out")


def test_a_band_of_pass_rates_takes_its_ends_and_nothing_outside(tmp_path, inputs):
    band = RECIPE.replace("quota: 0.5", "quota: 0.5\n    pass_rate: [0.2, 0.5]").replace("held_out: 6", "")
    said: list[str] = []
    build_mixture(recipe(tmp_path, band), inputs, tmp_path / "out", said.append)
    train = read(tmp_path / "out" / "train")
    rates = {json.loads(one.meta)["pass_rate"] for one in train if one.reward_type == "matching"}
    assert rates <= {0.2, 0.3, 0.4, 0.5} and {0.2, 0.5} <= rates
    assert {json.loads(one.meta)["pass_rate"] for one in train if one.reward_type == "iou"} > {0.0, 1.0}
    # of vsr, rows 2-5, 13-16, 24-27 and 35-38 are inside: 16 of 40
    assert "left out: 24 records, vsr: pass rate outside 0.2 to 0.5" in said
    assert "vsr (matching): 20 asked, 16 found" in said
    assert len(train) == 60


@pytest.mark.parametrize(("choice", "number"), [("keep", 3), ("drop", 2)])
def test_records_without_a_pass_rate_are_kept_or_dropped_as_told(tmp_path, choice, number):
    metas = ['{"pass_rate": 0.5}', "{}", '{"pass_rate": 1.0}', '{"pass_rate": 0.1}']
    rows = [one.to_row() | {"meta": meta} for one, meta in zip(records("vsr", 4), metas)]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), tmp_path / "in" / "a.parquet")
    text = (
        f"name: a\nsize: {number}\nwithout_pass_rate: {choice}\nshortfall: refuse\n"
        "types: {matching: {pass_rate: [0.1, 0.9], sources: {vsr: {license: none}}}}\n"
    )
    manifest = build_mixture(recipe(tmp_path, text), [tmp_path / "in"], tmp_path / "out")
    assert manifest.taken[0].found == number


def test_shortfalls_can_be_refused_and_then_nothing_is_written(tmp_path, inputs):
    text = RECIPE.replace("quota: 20", "quota: 45").replace("size: 60", "size: 120\nshortfall: refuse")
    with pytest.raises(UserError, match=r"nothing was written\n  vsr \(matching\): 47 asked, 40 found"):
        build_mixture(recipe(tmp_path, text), inputs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_ids_that_come_again_and_sources_outside_the_recipe_are_counted(tmp_path, inputs):
    write_records(tmp_path / "more.parquet", [*records("vsr", 5), *records("docci", 7)])
    said: list[str] = []
    manifest = build_mixture(
        recipe(tmp_path), [*inputs, tmp_path / "more.parquet"], tmp_path / "out", said.append
    )
    assert manifest.left_out == {
        "id stands for an earlier row too": 5,
        "matching of docci is not in the recipe": 7,
    }
    assert any("more.parquet, row " in line or "a.parquet, row " in line for line in said)
    ids = [one.id for one in read(tmp_path / "out" / "train")]
    assert len(ids) == len(set(ids)) == 60


def test_rows_without_optional_columns_are_filled_in(tmp_path):
    table = pa.Table.from_pylist([one.to_row() for one in records("vsr", 3)], schema=SCHEMA)
    (tmp_path / "in").mkdir()
    pq.write_table(table.drop_columns(["choices", "meta", "image_sizes"]), tmp_path / "in" / "a.parquet")
    text = "name: a\nsize: 3\ntypes: {matching: {sources: {vsr: {license: none}}}}\n"
    build_mixture(recipe(tmp_path, text), [tmp_path / "in"], tmp_path / "out")
    assert {(one.choices, one.meta, one.image_sizes) for one in read(tmp_path / "out" / "train")} == {
        (None, "{}", ())
    }
    assert pq.read_schema(tmp_path / "out" / "train" / "train-00000-of-00001.parquet").names == SCHEMA.names


def nullable_rows(tmp_path: Path, changes: dict) -> Path:
    rows = [one.to_row() for one in records("vsr", 3)]
    rows[1] |= changes
    schema = pa.schema([field.with_nullable(True) for field in SCHEMA])
    (tmp_path / "in").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "in" / "a.parquet")
    return tmp_path / "in"


VSR = "name: a\nsize: 3\ntypes: {matching: {sources: {vsr: {license: none}}}}\n"


def test_a_null_in_a_row_that_is_drawn_stops_with_file_and_column(tmp_path):
    with pytest.raises(UserError, match="a.parquet: column question holds nulls"):
        build_mixture(recipe(tmp_path, VSR), [nullable_rows(tmp_path, {"question": None})], tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.parquet")) and read_manifest(tmp_path / "out") is None


def test_null_meta_and_sizes_are_empty_ones(tmp_path):
    build_mixture(
        recipe(tmp_path, VSR),
        [nullable_rows(tmp_path, {"meta": None, "image_sizes": None})],
        tmp_path / "out",
    )
    found = {one.id: one for one in read(tmp_path / "out" / "train")}
    assert (found["vsr-1"].meta, found["vsr-1"].image_sizes) == ("{}", ())
    assert found["vsr-2"].image_sizes == ((16, 12),)


def test_a_row_without_source_is_left_out_and_named(tmp_path):
    said: list[str] = []
    build_mixture(
        recipe(tmp_path, VSR), [nullable_rows(tmp_path, {"source": None})], tmp_path / "out", said.append
    )
    assert "  the first: a.parquet, row 1: without id, source or reward type" in said


def test_a_cut_shard_stops_and_is_named(tmp_path, inputs):
    whole = (inputs[0] / "a.parquet").read_bytes()
    (inputs[0] / "a.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"vsr/a\.parquet: is not a readable Parquet file"):
        build_mixture(recipe(tmp_path), inputs, tmp_path / "out")


def test_damage_inside_a_shard_stops_and_is_named(tmp_path, inputs):
    content = bytearray((inputs[0] / "a.parquet").read_bytes())
    content[4:2000] = bytes(1996)
    (inputs[0] / "a.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"vsr/a\.parquet"):
        build_mixture(recipe(tmp_path), inputs, tmp_path / "out")
    assert read_manifest(tmp_path / "out") is None


def test_the_output_may_not_be_read_from(tmp_path, inputs):
    with pytest.raises(UserError, match="is read from there"):
        build_mixture(recipe(tmp_path), inputs, tmp_path / "in")


def test_the_hub_library_loads_both_splits_with_pictures(tmp_path, inputs):
    import datasets

    build_mixture(recipe(tmp_path), inputs, tmp_path / "out")
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in loaded.items()} == {"train": 60, "test": 6}
    row = loaded["train"][0]
    assert row["images"][0].size == (16, 12)
    assert row["image_sizes"] == [{"width": 16, "height": 12}]


def test_the_command_prints_the_table_and_says_what_went_wrong(tmp_path, inputs, capsys):
    words = [
        "--conf",
        str(tmp_path / "recipe.yaml"),
        "--from",
        *map(str, inputs),
        "--out",
        str(tmp_path / "out"),
    ]
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    assert main(words) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "refcoco" in line)
    assert line.split() == ["iou", "refcoco", "33", "80", "30", "3"]
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("size", "sise"))
    assert main(words) == 2
    assert "did you mean size?" in capsys.readouterr().err
