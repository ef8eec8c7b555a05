"""Real data workers on real Ray: a batch is split over them, comes back in order, and bad rows are told once."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray
from PIL import Image

from mixed_r1_ray.config import Config
from mixed_r1_ray.data.loader import PromptLoader
from mixed_r1_ray.data.schema import Record, write_records
from mixed_r1_ray.data.worker import DataWorker, SplitInfo
from mixed_r1_ray.environment import prepare_environment
from mixed_r1_ray.errors import UserError

COUNT, BAD = 40, 7


def picture(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def config(tmp_path_factory, tiny_checkpoints) -> Config:
    config = Config()
    data = replace(config.data, cache_dir=str(tmp_path_factory.mktemp("cache")), timeout_s=120.0)
    return replace(config, model=replace(config.model, path=tiny_checkpoints["internvl"]), data=data)


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> Path:
    """Row BAD's picture is cut short, which only decoding it shows."""
    folder = tmp_path_factory.mktemp("records")
    good = Record("", "shapes", "matching", (), ((40, 30),), "Where is the red circle?", "yes")
    rows = [replace(good, id=f"r{number:02d}", images=(picture(5 * number),)) for number in range(COUNT)]
    rows[BAD] = replace(rows[BAD], images=(rows[BAD].images[0][:60],))
    write_records(folder / "a.parquet", rows[:25])
    write_records(folder / "b.parquet", rows[25:])
    return folder


@pytest.fixture(scope="module")
def workers(config, records) -> list:
    prepare_environment(config)
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )
    yield [DataWorker.options(num_cpus=0.1).remote(config, {"train": str(records)}) for _ in range(2)]
    ray.shutdown()


@pytest.fixture(scope="module")
def rows(workers) -> SplitInfo:
    return ray.get(workers[0].describe.remote("train"), timeout=120)


def loader_of(workers, config, rows: SplitInfo) -> tuple[PromptLoader, list[str]]:
    told: list[str] = []
    return PromptLoader(workers, "train", config, rows.rows, rows.bad_rows, lambda bad: told.append(str(bad))), told


def test_prompts_come_in_the_order_that_was_asked_with_their_own_pictures_and_inputs(workers, config, rows):
    loader, _ = loader_of(workers, config, rows)
    wanted = [30, 2, 39, 11, 5, 26, 0]
    prompts = loader.load(wanted)
    assert [prompt.prompt_id for prompt in prompts] == [f"r{number:02d}" for number in wanted]
    for number, prompt in zip(wanted, prompts, strict=True):
        (image,) = ray.get(prompt.images, timeout=60)
        assert image.shape == (30, 40, 3) and image[0, 0].tolist() == [5 * number, 0, 0]
        inputs = ray.get(prompt.inputs, timeout=60)
        assert len(inputs.input_ids) == prompt.num_tokens and inputs.pixels["pixel_values"].shape[0] == 1


class Noted:
    """A real worker, and the rows that it was given."""

    def __init__(self, worker):
        self.worker, self.places = worker, []
        self.prepare = self

    def options(self, **options):
        self._call = self.worker.prepare.options(**options)
        return self

    def remote(self, split, places):
        self.places.append(places)
        return self._call.remote(split, places)


@pytest.mark.parametrize(("count", "shares"), [(8, [4, 4]), (7, [4, 3]), (1, [1, 0]), (2, [1, 1])])
def test_a_batch_is_split_over_all_workers(workers, config, rows, count, shares):
    noted = [Noted(worker) for worker in workers]
    loader, _ = loader_of(noted, config, rows)
    assert len(loader.load(range(8, 8 + count))) == count
    assert [sum(map(len, worker.places)) for worker in noted] == shares


def test_what_was_prefetched_is_not_prepared_again(workers, config, rows):
    noted = [Noted(worker) for worker in workers]
    loader, _ = loader_of(noted, config, rows)
    loader.prefetch([1, 2, 3, 4])
    loader.prefetch([1, 2, 3, 4])
    assert [prompt.prompt_id for prompt in loader.load([1, 2, 3, 4])] == ["r01", "r02", "r03", "r04"]
    assert [len(worker.places) for worker in noted] == [1, 1]
    assert loader.load([]) == []


def test_a_bad_picture_is_left_out_named_by_file_and_row_and_counted_once(workers, config, rows):
    loader, told = loader_of(workers, config, rows)
    for _ in range(2):
        assert [prompt.prompt_id for prompt in loader.load([6, BAD, 8])] == ["r06", "r08"]
    assert len(told) == len(loader.bad_rows) == 1
    assert told[0].startswith(f"a.parquet, row {BAD}, images: cannot be decoded")


def test_what_a_checkpoint_keeps_makes_a_new_loader_go_on_where_the_old_one_was(workers, config, rows):
    old, _ = loader_of(workers, config, rows)
    batches = [[0, 1, BAD, 3], [4, 5]]
    for batch in batches:
        old.load(batch)
    new, told = loader_of(workers, config, rows)
    new.restore(old.found(), batches)
    assert new.bad_rows == old.bad_rows and new.found() == old.found()
    new.load([BAD])
    assert told == [] and len(new.bad_rows) == 1


def test_restored_bad_rows_count_towards_the_rate_over_all_rows_loaded_since_the_start(workers, config, rows):
    loader, _ = loader_of(workers, config, rows)
    found = [{"file": "a.parquet", "row": 100 + n, "field": "images", "reason": "x"} for n in range(10)]
    loader.restore(found, [range(8, 25)])  # 10 bad of 17; with the next one 11 of 18
    with pytest.raises(UserError, match="11 of 18 rows cannot be used"):
        loader.load([BAD])


def test_a_batch_of_bad_rows_alone_stops_with_one_of_them(workers, config, rows):
    loader, _ = loader_of(workers, config, rows)
    with pytest.raises(UserError, match=rf"none of the 1 rows drawn .*a\.parquet, row {BAD}, images"):
        loader.load_batch([BAD])


def test_workers_share_one_copy_of_each_file(workers, config, rows):
    ray.get([worker.describe.remote("train") for worker in workers], timeout=60)
    assert len(list((Path(config.data.cache_dir) / "records").glob("*.arrow"))) == 2


def test_every_worker_says_which_files_it_sees(workers):
    seen = ray.get([worker.shards.remote("train") for worker in workers], timeout=60)
    assert seen == [[("a.parquet", 25), ("b.parquet", 15)]] * 2


def test_pictures_for_the_report_are_found_by_id(workers, rows):
    found = ray.get(workers[1].pictures.remote("train", ["r30", "nobody"]), timeout=60)
    assert list(found) == ["r30"] and np.array(Image.open(io.BytesIO(found["r30"])))[0, 0].tolist() == [150, 0, 0]
