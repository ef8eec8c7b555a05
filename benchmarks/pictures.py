"""Record files for benchmarks: questions about JPEGs of 448 x 448 that are as large as photographs are."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 448
DIFFERENT = 64  # pictures; the others repeat them


def jpegs(count: int = DIFFERENT) -> list[bytes]:
    """Noise of 8-pixel grain, at quality 85: about 50 kB each."""
    pictures = []
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 255, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
        pictures.append(buffer.getvalue())
    return pictures


def write_json_lines(folder: Path, records: int) -> None:
    """One `train.jsonl` and a picture file for every record, as people keep their own data."""
    pictures = jpegs()
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with open(folder / "train.jsonl", "w", encoding="utf-8") as file:
        for number in range(records):
            name = f"images/{number:06d}.jpg"
            (folder / name).write_bytes(pictures[number % DIFFERENT])
            row = {"id": f"r{number}", "image": name, "question": f"Is picture {number} grey?", "answer": "no"}
            file.write(json.dumps(row) + "\n")
