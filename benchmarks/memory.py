"""Peak memory of a command and of every process that it starts, and whether it grows.

    python benchmarks/memory.py bash jobs/quickstart.sh run.name=memory
    python benchmarks/memory.py python -m mixed_r1_ray.main conf=quickstart run.name=memory run.max_steps=500 data.eval=null

Sums proportional set sizes twice a second: a page that several processes share, the object store's included, counts
once. Prints the peak and its ratio to 6 GiB, and the slope of a straight line through the last half of the time, where
the processes last that long (the first half has what is started and filled once). The slope leaves pages of files out:
a share of a library's falls to these processes that grows whenever another one that has it mapped ends. Exits as the
command does. Linux only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from statistics import fmean, linear_regression

MARK = "MIXED_R1_RAY_MEMORY"  # inherited by every process, whoever its parent is by then
LIMIT_GIB = 6.0
END_S = 15.0  # in which actors are ended and the report is written
LEAST_SAMPLES = 60


def held(mark: str) -> tuple[float, float]:
    """GiB that all processes marked so hold now: with pages of files, and without."""
    sought = f"{MARK}={mark}".encode()
    total = files = 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if sought in (entry / "environ").read_bytes().split(b"\0"):
                lines = (entry / "smaps_rollup").read_text().splitlines()[1:]
                kib = {line.split()[0]: int(line.split()[1]) for line in lines}
                total, files = total + kib["Pss:"], files + kib["Pss_File:"]
        except OSError:  # ended meanwhile, or not ours to read
            continue
    return total / 2**20, (total - files) / 2**20


def main() -> int:
    mark, samples, begun = uuid.uuid4().hex, [], time.monotonic()
    process = subprocess.Popen(sys.argv[1:], env=os.environ | {MARK: mark})
    while True:
        try:
            code = process.wait(0.5)
            break
        except subprocess.TimeoutExpired:
            samples.append((time.monotonic() - begun, *held(mark)))
    peak = max((gib for _, gib, _ in samples), default=0.0)
    print(f"peak {peak:.2f} GiB, × {peak / LIMIT_GIB:.2f} of {LIMIT_GIB:g} GiB")
    print_slope([sample for sample in samples if END_S < samples[-1][0] - sample[0] < samples[-1][0] / 2])
    return code


def print_slope(samples: list[tuple[float, float, float]]) -> None:
    """Of GiB without files over seconds, and what it comes to over that time."""
    if len(samples) < LEAST_SAMPLES:
        return
    seconds, _, gib = zip(*samples, strict=True)
    slope = linear_regression(seconds, gib).slope
    print(
        f"slope {slope * 60 * 1024:+.2f} MiB a minute over {(seconds[-1] - seconds[0]) / 60:.1f} minutes, "
        f"× {slope * (seconds[-1] - seconds[0]) / fmean(gib):+.4f} of the mean of {fmean(gib):.2f} GiB"
    )


if __name__ == "__main__":
    sys.exit(main())
