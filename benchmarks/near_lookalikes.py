"""What `select` takes for the same picture: copies of one, saved anew, and different ones that look alike.

    python benchmarks/near_lookalikes.py

Pictures: the quickstart's training data (112 x 112, flat), and 200 cuttings of the two photographs that come with
scikit-learn. Prints how many pairs of different quickstart pictures count as one at each `pixel_difference`, then
how far copies lie from their originals: 99th percentile and maximum.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from mixed_r1_ray.data.engine.hamming import near_pairs
from mixed_r1_ray.data.engine.looks import COPY_BYTES, Look, look_at, same_picture
from mixed_r1_ray.data.engine.settings import PictureSettings
from mixed_r1_ray.data.images import decode_image
from mixed_r1_ray.data.synthetic import build_quickstart_data

DEFAULT = PictureSettings()
LIMITS = (255, 48, 32, 24, 16, 8)
SAMPLE = 400


def saved_anew(picture: Image.Image) -> dict[str, bytes]:
    small = picture.resize((picture.width * 7 // 10, picture.height * 7 // 10), Image.Resampling.LANCZOS)
    return {
        "JPEG 60": encoded(picture, "JPEG", quality=60),
        "0.7 of the size": encoded(small, "PNG"),
        "0.7, JPEG 60": encoded(small, "JPEG", quality=60),
        "WebP 70": encoded(picture, "WEBP", quality=70),
    }


def encoded(picture: Image.Image, file_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def quickstart_pictures(folder: Path) -> list[bytes]:
    train, _ = build_quickstart_data(folder)
    rows = pq.read_table(train, columns=["images"]).column("images").to_pylist()
    return list(dict.fromkeys(row[0]["bytes"] for row in rows))


def photographs(number: int) -> list[Image.Image]:
    from sklearn.datasets import load_sample_images

    random, cuttings = np.random.default_rng(0), []
    for place in range(number):
        pixels = load_sample_images().images[place % 2]
        width, height = random.integers(120, 400, 2)
        left, top = random.integers(0, pixels.shape[1] - width), random.integers(0, pixels.shape[0] - height)
        cuttings.append(Image.fromarray(pixels[top : top + height, left : left + width]))
    return cuttings


def copies(looks: list[Look]) -> np.ndarray:
    return np.frombuffer(b"".join(look.copy for look in looks), np.uint8).reshape(-1, COPY_BYTES)


def print_lookalikes(looks: list[Look]) -> None:
    hashes, small = np.array([look.phash for look in looks], np.uint64), copies(looks)
    counts = dict.fromkeys(LIMITS, 0)
    for i, j in near_pairs(hashes, hashes, DEFAULT.distance):
        i, j = i[i < j], j[i < j]
        for limit in LIMITS:
            counts[limit] += int(same_picture(small[i], small[j], limit).sum())
    print(f"{len(looks):,} different pictures, {len(looks) * (len(looks) - 1) // 2:,} pairs; taken for the same one:")
    print("  " + ", ".join(f"{'hash alone' if limit == 255 else limit}: {n:,}" for limit, n in counts.items()))


def print_copies(name: str, pictures: list[Image.Image]) -> None:
    found: dict[str, list[tuple[int, int, int, bool]]] = {}
    for picture in pictures:
        original = look_at(np.asarray(picture))
        for way, data in saved_anew(picture).items():
            look = look_at(decode_image(data))
            mine, theirs = copies([original]), copies([look])
            bits = (original.phash ^ look.phash).bit_count()
            far = np.abs(mine.astype(int) - theirs).reshape(-1, 3).max(axis=0)
            same = bits <= DEFAULT.distance and same_picture(mine, theirs, DEFAULT.pixel_difference)[0]
            found.setdefault(way, []).append((bits, far[0], far[1:].max(), same))
    for way, rows in found.items():
        bits, bright, colour, same = np.array(rows).T
        parts = [
            f"{what} {np.quantile(values, 0.99):.0f} / {values.max()}"
            for what, values in (("bits", bits), ("brightness", bright), ("colour", colour))
        ]
        print(f"{name}, {way:<16} {', '.join(parts)}; found again: {same.mean():.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/.cache"))
    pictures = quickstart_pictures(parser.parse_args().folder)
    print_lookalikes([look_at(decode_image(picture)) for picture in pictures])
    chosen = np.random.default_rng(0).choice(len(pictures), SAMPLE, replace=False)
    print_copies("quickstart", [Image.fromarray(decode_image(pictures[place])) for place in chosen])
    print_copies("photographs", photographs(200))


if __name__ == "__main__":
    main()
