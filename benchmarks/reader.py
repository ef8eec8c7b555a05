"""How many records a second the data workers read, decode and prepare.

    python benchmarks/reader.py --folder /tmp/reader

2,048 records with JPEGs of 448 x 448 (about 50 kB), the real Ray actors, the processors of both families at the
resolution of their large checkpoints: InternVL one tile of 448, Qwen2.5-VL 32 x 32 patches, 256 image tokens either
way. Batches of 64, the next one always under way, as in training; a consumer that does nothing but ask. Prints
records/s for one and two workers and the ratio to 200/s, and the workers' CPU time a record: Ray runs them at nice 15,
so on a machine that others use the first says how much they leave over, and the second what it takes. Then where the
CPU time of a record goes, without Ray.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import ray
from pictures import SIDE, jpegs

from mixed_r1_ray.config import Config
from mixed_r1_ray.data.images import decode_image
from mixed_r1_ray.data.loader import PromptLoader
from mixed_r1_ray.data.order import BatchOrder
from mixed_r1_ray.data.reader import RecordTable
from mixed_r1_ray.data.schema import Record, write_records
from mixed_r1_ray.data.worker import DataWorker, SplitInfo
from mixed_r1_ray.environment import prepare_environment
from mixed_r1_ray.vlm.families import load_adapter

RECORDS, BATCH, STEPS = 2048, 64, 24
TARGET = 200.0  # records/s on two cores
STORE_BYTES = 2 * 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="for records, checkpoints and the cache")
    folder = parser.parse_args().folder.resolve()
    make_records(folder / "records")
    configs = {family: make_config(folder, family) for family in ("internvl", "qwen2_5_vl")}
    for family, config in configs.items():
        for workers in (1, 2):
            rate, cpu_ms = measure(config, folder / "records", workers)
            print(
                f"{family}, {workers} worker(s): {rate:.0f} records/s, × {rate / TARGET:.2f} of {TARGET:.0f}; "
                f"{cpu_ms:.1f} ms of CPU a record"
            )
    for family, config in configs.items():
        print(f"{family}, ms of CPU a record: {profile(config, folder / 'records')}")


def measure(config: Config, records: Path, num_workers: int) -> tuple[float, float]:
    """Records/s through real actors, one batch ahead, and the CPU milliseconds of the workers for each."""
    prepare_environment(config)
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )
    try:
        workers = [DataWorker.options(num_cpus=0.5).remote(config, {"train": str(records)}) for _ in range(num_workers)]
        rows: SplitInfo = ray.get(workers[0].describe.remote("train"), timeout=600)
        loader = PromptLoader(workers, "train", config, rows.rows, rows.bad_rows, lambda bad: print(bad))
        order = BatchOrder(["matching"] * len(rows.rows), BATCH, seed=0)
        for step in (1, 2):  # warm
            loader.load_batch(order.batch(step))
        start, cpu = time.perf_counter(), cpu_seconds(workers)
        loader.prefetch(order.batch(3))
        for step in range(3, 3 + STEPS):
            if step < 2 + STEPS:
                loader.prefetch(order.batch(step + 1))
            prompts = loader.load_batch(order.batch(step))
            assert len(prompts) == BATCH
        rate = STEPS * BATCH / (time.perf_counter() - start)
        return rate, 1000 * (cpu_seconds(workers) - cpu) / (STEPS * BATCH)
    finally:
        ray.shutdown()


def cpu_seconds(workers: list) -> float:
    """That the workers' processes have used so far."""
    return sum(ray.get([worker.__ray_call__.remote(lambda _: time.process_time()) for worker in workers], timeout=60))


def profile(config: Config, records: Path, count: int = 200) -> str:
    """Where the time goes without Ray."""
    import torch

    torch.set_num_threads(1)
    adapter, table = load_adapter(config.model), RecordTable(str(records), 0.0, config.data.cache_dir)
    marks = [time.process_time()]
    read = [table.record_at(0, row) for row in range(count)]
    marks.append(time.process_time())
    images = [decode_image(record.images[0]) for record in read]
    marks.append(time.process_time())
    texts = [adapter.prompt_text(record.question, 1) for record in read]
    for text, image in zip(texts, images, strict=True):
        adapter.encode(text, (image,))
    marks.append(time.process_time())
    names = ("read", "decode", "process")
    spans = (1000 * (end - start) / count for start, end in zip(marks, marks[1:], strict=False))
    return ", ".join(f"{name} {span:.2f}" for name, span in zip(names, spans, strict=True))


def make_records(folder: Path) -> None:
    if (folder / "train.parquet").exists():
        return
    pictures = jpegs()
    write_records(
        folder / "train.parquet",
        [
            Record(f"r{number}", "noise", "matching", (pictures[number % len(pictures)],), ((SIDE, SIDE),),
                   f"Is picture {number} grey?", "no")
            for number in range(RECORDS)
        ],
    )  # fmt: skip


def make_config(folder: Path, family: str) -> Config:
    """A checkpoint whose processor is that of the large ones, and the limits of a run on it."""
    from transformers import AutoProcessor

    from mixed_r1_ray.vlm.tiny import save_tiny

    checkpoint = folder / family
    if not checkpoint.exists():
        save_tiny(checkpoint, family, ["Is picture 0123456789 grey?"])
        processor = AutoProcessor.from_pretrained(checkpoint)
        if family == "internvl":
            processor.image_processor.size = {"height": SIDE, "width": SIDE}
            processor.image_seq_length = 256
            processor.save_pretrained(checkpoint)
    config = Config()
    max_pixels = SIDE * SIDE if family == "qwen2_5_vl" else None
    model = replace(config.model, path=str(checkpoint), max_pixels=max_pixels, max_length=1024)
    return replace(config, model=model, data=replace(config.data, cache_dir=str(folder / "cache")))


if __name__ == "__main__":
    main()
