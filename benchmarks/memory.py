"""Peak memory of a command and of every process that it starts.

    python benchmarks/memory.py bash jobs/quickstart.sh run.name=memory

Sums proportional set sizes twice a second: a page that several processes share, the object store's included, counts
once. Prints the peak and its ratio to 6 GiB; exits as the command does. Linux only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

MARK = "MIXED_R1_RAY_MEMORY"  # inherited by every process, whoever its parent is by then
LIMIT_GIB = 6.0


def held(mark: str) -> int:
    """Bytes that all processes marked so hold now."""
    sought = f"{MARK}={mark}".encode()
    total = 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if sought in (entry / "environ").read_bytes().split(b"\0"):
                lines = (entry / "smaps_rollup").read_text().splitlines()
                total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        except OSError:  # ended meanwhile, or not ours to read
            continue
    return total


def main() -> int:
    mark, peak = uuid.uuid4().hex, 0
    process = subprocess.Popen(sys.argv[1:], env=os.environ | {MARK: mark})
    while True:
        try:
            code = process.wait(0.5)
            break
        except subprocess.TimeoutExpired:
            peak = max(peak, held(mark))
    print(f"peak {peak / 2**30:.2f} GiB, × {peak / 2**30 / LIMIT_GIB:.2f} of {LIMIT_GIB:g} GiB")
    return code


if __name__ == "__main__":
    sys.exit(main())
