"""How long `mix` takes over many records, and how much memory.

    python benchmarks/mixture.py --records 1000000 --folder /tmp/mixture

Makes synthetic record shards (tiny pictures, each different) once, then mixes them in a child process: a
small mixture out of all, and one that takes nearly all. Peak memory is the child's own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from mixed_r1_ray.data.schema import SCHEMA
from mixed_r1_ray.data.shards import ShardWriter

SOURCES = {
    "matching": ("one", "two", "three"),
    "chart": ("four", "five"),
    "iou": ("six", "seven"),
    "open_ended": ("eight",),
}
SHARD_ROWS = 20_000
PICTURE_BYTES = 400


def make_inputs(folder: Path, records: int) -> None:
    """Shards of SHARD_ROWS rows, one source a shard; pictures are random bytes, which `mix` never decodes."""
    strata = [(kind, source) for kind, sources in SOURCES.items() for source in sources]
    for number in range(records // SHARD_ROWS):
        kind, source = strata[number % len(strata)]
        random = np.random.default_rng(number)
        with ShardWriter(folder / f"{source}-{number:04d}.parquet", made_of="benchmark") as writer:
            for first in range(0, SHARD_ROWS, 2000):
                writer.add_table(_rows(kind, source, number, range(first, first + 2000), random))


def _rows(kind: str, source: str, number: int, rows: range, random: np.random.Generator) -> pa.Table:
    names = [f"{source}-{number}-{row}" for row in rows]
    count = len(names)
    values = {
        "id": names,
        "source": [source] * count,
        "reward_type": [kind] * count,
        "images": [[{"bytes": random.bytes(PICTURE_BYTES), "path": None}] for _ in names],
        "image_sizes": [[{"width": 32, "height": 32}]] * count,
        "question": [f"What is asked of {name}?" for name in names],
        "choices": [None] * count,
        "answer": [
            "[1, 2, 20, 30]" if kind == "iou" else hashlib.md5(name.encode()).hexdigest() for name in names
        ],
        "meta": [json.dumps({"pass_rate": round(rate, 3)}) for rate in random.random(count)],
    }
    return pa.Table.from_pydict(values, schema=SCHEMA)


def recipe(size: int, held_out: int) -> str:
    """Equal parts for a type's sources, a quarter for every type; a band where rewards are not graded."""
    lines = ["name: benchmark", f"size: {size}", f"held_out: {held_out}", "types:"]
    for kind, sources in SOURCES.items():
        lines += [
            f"  {kind}:",
            *(["    pass_rate: [0.1, 0.9]"] if kind != "open_ended" else []),
            "    sources:",
        ]
        lines += [f"      {source}: {{license: none}}" for source in sources]
    return "\n".join(lines) + "\n"


def measure(folder: Path, size: int, held_out: int) -> None:
    """Mixes in a child process, prints seconds and peak memory."""
    out = folder / f"out-{size}"
    shutil.rmtree(out, ignore_errors=True)
    conf = folder / f"recipe-{size}.yaml"
    conf.write_text(recipe(size, held_out), encoding="utf-8")
    words = ["mix", "--conf", str(conf), "--from", str(folder / "in"), "--out", str(out)]
    start = time.monotonic()
    child = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-m", "mixed_r1_ray.data", *words])
    _, status, usage = os.wait4(child, 0)
    print(
        f"size {size:,}: {time.monotonic() - start:.1f} s, peak {usage.ru_maxrss / 1024:.0f} MiB, "
        f"exit {status >> 8}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    done = arguments.folder / f"in/made-{arguments.records}"
    if not done.is_file():
        start = time.monotonic()
        make_inputs(arguments.folder / "in", arguments.records)
        done.touch()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"inputs: {arguments.records:,} records in {time.monotonic() - start:.0f} s (peak {peak:.0f} MiB)"
        )
    for size in (arguments.records * 45 // 1000, arguments.records * 3 // 4):
        measure(arguments.folder, size, held_out=size // 100)


if __name__ == "__main__":
    main()
