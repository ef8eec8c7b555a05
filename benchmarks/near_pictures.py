"""How long `select` takes to find near pictures among many, and how much memory.

    python benchmarks/near_pictures.py --pictures 45000 200000 1000000

Random 64-bit hashes, a thousand of them within two bits of another, in a child process for each number. `all pairs`
is what comparing each with each would come to, at the rate that this machine compares blocks of 4096 by 4096. The last
line is what looking at one picture costs, a 448 x 448 JPEG: decoding, hash and small copy.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import subprocess
import sys
import time

import numpy as np

from mixed_r1_ray.data.engine.hamming import near_pairs

DISTANCE, PLANTED, BLOCK = 6, 1000, 4096


def measure(pictures: int) -> dict:
    """Seconds, peak MiB of the process, and pairs found: the planted ones, and among a million one or two by chance."""
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**64, pictures, dtype=np.uint64)
    hashes[-PLANTED:] = hashes[:PLANTED] ^ np.uint64(0b101 << 20)
    start = time.perf_counter()
    found = sum(int((i < j).sum()) for i, j in near_pairs(hashes, hashes, DISTANCE))
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    np.bitwise_count(hashes[:BLOCK, None] ^ hashes[None, :BLOCK]) <= DISTANCE  # noqa: B015
    every = (time.perf_counter() - start) * (pictures / BLOCK) ** 2 / 2
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"pictures": pictures, "found": found, "seconds": seconds, "all_pairs_s": every, "peak_mib": peak}


def look_ms(times: int = 200) -> float:
    """Milliseconds to look at a picture, the fastest of five rounds."""
    from PIL import Image

    from mixed_r1_ray.data.engine.looks import look_at
    from mixed_r1_ray.data.images import decode_image

    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (56, 56, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((448, 448), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    rounds = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(times):
            look_at(decode_image(buffer.getvalue()))
        rounds.append((time.perf_counter() - start) / times)
    return 1000 * min(rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", nargs="+", type=int, default=[45_000, 200_000, 1_000_000])
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.child)))
        return
    print(f"{'pictures':>10} {'found':>6} {'seconds':>8} {'all pairs':>10} {'ratio':>6} {'peak MiB':>9}")
    for number in arguments.pictures:
        words = [sys.executable, __file__, "--child", str(number)]
        row = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
        ratio = row["all_pairs_s"] / row["seconds"]
        print(
            f"{row['pictures']:>10,} {row['found']:>6,} {row['seconds']:>8.1f} {row['all_pairs_s']:>9.0f}s "
            f"{ratio:>6.1f} {row['peak_mib']:>9.0f}"
        )
    print(f"looking at a picture of 448 x 448: {look_ms():.1f} ms")


if __name__ == "__main__":
    main()
