"""Pictures and records that tests of `select` share, and the first two stages without Ray."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mixed_r1_ray.data.engine.signatures import PART_ROWS, SignaturePart, sign_part
from mixed_r1_ray.data.engine.table import SignatureTable, load_table
from mixed_r1_ray.data.record_files import open_files
from mixed_r1_ray.data.schema import Record, write_records


def photo(seed: int, width: int = 200, height: int = 140) -> Image.Image:
    """Smooth coloured noise: structure at many sizes, as photographs have."""
    random = np.random.default_rng(seed)
    layers = []
    for size, weight in ((3, 1.0), (7, 0.7), (17, 0.4), (40, 0.2)):
        small = Image.fromarray(random.integers(0, 255, (size, size, 3), dtype=np.uint8))
        layers.append(weight * np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), float))
    mixed = sum(layers)
    return Image.fromarray((255 * (mixed - mixed.min()) / np.ptp(mixed)).astype(np.uint8))


def bars(heights: Sequence[int], side: int = 112) -> Image.Image:
    """A bar chart on white."""
    picture = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(picture)
    for place, (height, colour) in enumerate(zip(heights, ("red", "green", "blue"), strict=True)):
        left = 20 + 30 * place
        draw.rectangle((left, side - 7 - height, left + 20, side - 7), fill=colour)
    return picture


def encoded(picture: Image.Image, file_format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def reencoded(picture: Image.Image) -> dict[str, bytes]:
    """The same picture as others may have saved it."""
    small = picture.resize((picture.width * 7 // 10, picture.height * 7 // 10), Image.Resampling.LANCZOS)
    return {
        "jpeg": encoded(picture, "JPEG", quality=60),
        "resized": encoded(small),
        "resized jpeg": encoded(small, "JPEG", quality=60),
        "webp": encoded(picture, "WEBP", quality=70),
    }


@dataclass
class Asked:
    """A record in few words."""

    id: str
    picture: bytes | tuple[bytes, ...]
    question: str = "How many bars are there in this chart?"
    answer: str = "3"
    kind: str = "chart"
    source: str = "charts"

    def record(self) -> Record:
        pictures = self.picture if isinstance(self.picture, tuple) else (self.picture,)
        sizes = tuple(Image.open(io.BytesIO(one)).size for one in pictures)
        return Record(self.id, self.source, self.kind, pictures, sizes, self.question, self.answer)


def table_of(folder: Path, *files: Sequence[Asked]) -> SignatureTable:
    """The signatures of records in one file each."""
    for number, asked in enumerate(files):
        write_records(folder / f"{number}.parquet", [one.record() for one in asked])
    opened = open_files([folder])
    parts = [
        SignaturePart(file, 0, file.num_rows, folder / "work" / f"{file.digest}.parquet") for file in opened
    ]
    assert all(file.num_rows <= PART_ROWS for file in opened)
    for part in parts:
        sign_part(part)
    return load_table(opened, parts, folder / "work" / "copies.bin")


def names(table: SignatureTable) -> dict[int, str]:
    """Record number -> id."""
    return {number: texts["id"] for number, texts in table.texts(np.arange(len(table)))}
