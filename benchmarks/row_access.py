"""What it takes to open records for access to any row, and what that holds in memory, whatever their number.

    python benchmarks/row_access.py --folder /tmp/rows --records 5000 45000

Shards of 1,000 records with JPEGs of 448 x 448 (about 50 kB). Prints the seconds to make the Arrow copies, to look through
all rows, to open them again, and to read 2,000 rows at random; and the memory that is this process's own (RssAnon, not the
pages of the copies, which the kernel may take back) that this adds. 45,000 records take 5 GB of disk.
"""

from __future__ import annotations

import argparse
import random
import shutil
import time
from multiprocessing import get_context
from pathlib import Path

from pictures import SIDE, jpegs

from mixed_r1_ray.data.reader import RecordTable
from mixed_r1_ray.data.schema import Record, write_records

SHARD, READS = 1000, 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--records", type=int, nargs="+", default=[5000])
    arguments = parser.parse_args()
    pictures, cache = jpegs(), arguments.folder / "cache"
    for records in arguments.records:
        folder = arguments.folder / str(records)
        for first in range(0, records, SHARD):
            path = folder / f"{first:07d}.parquet"
            if not path.exists():
                write_records(path, [_record(number, pictures) for number in range(first, min(first + SHARD, records))])
        shutil.rmtree(cache, ignore_errors=True)
        child = get_context("spawn").Process(target=measure, args=(folder, cache, records))
        child.start()
        child.join()
        if child.exitcode:
            raise SystemExit(child.exitcode)


def measure(folder: Path, cache: Path, records: int) -> None:
    """Runs in a process of its own, so that its memory is."""
    before, marks = _own_bytes(), [time.perf_counter()]
    table = RecordTable(str(folder), 0.0, cache)
    marks.append(time.perf_counter())
    assert len(table.rows) == records
    marks.append(time.perf_counter())
    table = RecordTable(str(folder), 0.0, cache)
    marks.append(time.perf_counter())
    for index in random.Random(0).choices(range(records), k=READS):
        table.record_at(index // SHARD, index % SHARD)
    marks.append(time.perf_counter())
    copy, look, again, read = (end - start for start, end in zip(marks, marks[1:], strict=False))
    size = sum(path.stat().st_size for path in (cache / "records").glob("*.arrow"))
    print(
        f"{records:,} records: copy {copy:.1f} s ({size / 2**30:.2f} GiB), look through {look:.1f} s, open again "
        f"{again:.2f} s, read {READS / read:.0f} rows a second; own memory + {(_own_bytes() - before) / 2**20:.0f} MiB"
    )


def _record(number: int, pictures: list[bytes]) -> Record:
    picture = pictures[number % len(pictures)]
    return Record(f"r{number}", "noise", "matching", (picture,), ((SIDE, SIDE),), f"Is picture {number} grey?", "no")


def _own_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


if __name__ == "__main__":
    main()
