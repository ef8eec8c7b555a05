"""How long `convert` and `check` take over records with pictures, and how much memory, Ray's processes included.

    python benchmarks/records.py --folder /tmp/records --records 5000 45000

Makes `train.jsonl` with a JPEG of 448 x 448 (about 50 kB) for each record, converts that and checks the result, by the
commands that people use. Prints seconds, records/s and the peak memory of all processes (as benchmarks/memory.py counts
it); for several sizes, the time of a record against that of the first size: 1 is linear. 45,000 records take 7 GB of disk.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from memory import MARK, held
from pictures import write_json_lines

MOST_S, MOST_GIB = 900.0, 4.0  # for 45,000 records, convert and check together
EVERY_S = 0.5


@dataclass(frozen=True)
class Cost:
    seconds: float
    peak_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--records", type=int, nargs="+", default=[5000])
    arguments = parser.parse_args()
    first: dict[str, float] = {}
    for records in arguments.records:
        folder = arguments.folder.resolve() / str(records)
        if not (folder / "made").exists():
            write_json_lines(folder / "in", records)
            (folder / "made").touch()
        costs = run_both(folder)
        for name, cost in costs.items():
            each = cost.seconds / records
            print(
                f"{records:,} records, {name}: {cost.seconds:.1f} s, {records / cost.seconds:.0f} a second, "
                f"peak {cost.peak_bytes / 2**30:.2f} GiB, {each / first.setdefault(name, each):.2f} × the first "
                "size's time a record"
            )
        total, peak = sum(cost.seconds for cost in costs.values()), max(cost.peak_bytes for cost in costs.values())
        print(
            f"{records:,} records, both: {total:.1f} s, × {total / MOST_S:.2f} of {MOST_S:.0f} s; "
            f"peak × {peak / 2**30 / MOST_GIB:.2f} of {MOST_GIB:g} GiB"
        )


def run_both(folder: Path) -> dict[str, Cost]:
    """Converts into an empty folder, then checks it."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    convert = ["convert", "jsonl", "--from", folder / "in", "--out", folder / "out"]
    convert += ["--set", "source=noise", "reward_type=matching"]
    return {"convert": watched(convert), "check": watched(["check", folder / "out"])}


def watched(words: list) -> Cost:
    """Runs a command of the data engine and looks at the memory of everything it starts."""
    mark, peak, start = uuid.uuid4().hex, 0, time.monotonic()
    command = [sys.executable, "-m", "mixed_r1_ray.data", *map(str, words)]
    process = subprocess.Popen(command, env=os.environ | {MARK: mark}, stdout=subprocess.DEVNULL)
    while True:
        try:
            code = process.wait(EVERY_S)
            break
        except subprocess.TimeoutExpired:
            peak = max(peak, held(mark))
    if code:
        raise SystemExit(f"{' '.join(command)}: exit code {code}")
    return Cost(time.monotonic() - start, peak)


if __name__ == "__main__":
    main()
