"""A few records to look at: which ones, their pictures made small, their gold as boxes on the picture."""

from __future__ import annotations

import base64
import hashlib
import heapq
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mixed_r1_ray.data.images import ImageError, decode_image
from mixed_r1_ray.data.quotas import Stratum
from mixed_r1_ray.data.record_files import InputFile, as_records, read_batches
from mixed_r1_ray.data.schema import Record
from mixed_r1_ray.rewards import score, validate_gold
from mixed_r1_ray.rewards.iou import parse_gold

Place = tuple[int, int]  # number of the file, row


@dataclass(frozen=True, slots=True)
class ShownBox:
    """A gold box as fractions of its picture's width and height."""

    x: float
    y: float
    width: float
    height: float
    label: str


@dataclass(frozen=True, slots=True)
class ShownPicture:
    """A picture as RGB (H, W, 3) at most `longest` a side, or the fault why there is none."""

    pixels: np.ndarray | None
    size: tuple[int, int]  # (width, height) as stored
    fault: str = ""

    def data_uri(self) -> str:
        """PNG where it is small or has few colours, else JPEG."""
        from PIL import Image

        picture, encoded = Image.fromarray(self.pixels), io.BytesIO()
        drawn = picture.width * picture.height <= 256 * 256 or picture.getcolors(256) is not None
        kind = "png" if drawn else "jpeg"
        picture.save(encoded, kind.upper(), **({"optimize": True} if drawn else {"quality": 85}))
        return f"data:image/{kind};base64,{base64.b64encode(encoded.getvalue()).decode()}"


@dataclass(frozen=True, slots=True)
class ShownRecord:
    """A record made ready to be looked at.

    right_choice: place of the option that earns the reward, None where there are none. gold_fault: why the
    gold cannot be scored against, '' where it can.
    """

    record: Record
    file: str
    row: int
    pictures: tuple[ShownPicture, ...]
    boxes: tuple[ShownBox, ...]  # on the first picture
    right_choice: int | None
    gold_fault: str


def choose_places(files: Sequence[InputFile], number: int, sources: Sequence[str] = ()) -> list[Place]:
    """`number` rows, or all: types and their sources in turn, by a hash of their ids.

    sources: only these; none means all.
    """
    least: dict[Stratum, list[tuple[int, Place]]] = {}
    for number_of_file, file in enumerate(files):
        for first, batch in read_batches(file, ["id", "source", "reward_type"], batch_rows=16384):
            columns = (batch.column(name).to_pylist() for name in ("id", "source", "reward_type"))
            for offset, (record_id, source, kind) in enumerate(zip(*columns, strict=True)):
                if sources and source not in sources:
                    continue
                heap = least.setdefault((str(kind), str(source)), [])
                entry = -_digest(str(record_id)), (number_of_file, first + offset)
                (heapq.heappush if len(heap) < number else heapq.heappushpop)(heap, entry)
    queues: dict[str, list[list[Place]]] = {}
    for (kind, _), heap in sorted(least.items()):
        queues.setdefault(kind, []).append([place for _, place in sorted(heap, reverse=True)])
    return _in_turn([_in_turn(of_type) for of_type in queues.values()])[:number]


def sources_of(files: Sequence[InputFile]) -> list[str]:
    """The names that stand in `source`, sorted."""
    found: set[str] = set()
    for file in files:
        for _, batch in read_batches(file, ["source"], batch_rows=16384):
            found |= {str(name) for name in batch.column("source").unique().to_pylist()}
    return sorted(found)


def load_samples(files: Sequence[InputFile], places: Sequence[Place], longest: int) -> Iterator[ShownRecord]:
    """The rows at `places`, in that order, pictures at most `longest` pixels a side."""
    for number, row in places:
        file = files[number]
        for _, batch in read_batches(file, file.columns, np.array([row])):
            (values,) = as_records(batch, file).to_pylist()
            yield _shown(Record.from_row(values), file.path.name, row, longest)


def _shown(record: Record, file: str, row: int, longest: int) -> ShownRecord:
    pictures = tuple(_picture(content, longest) for content in record.images)
    size = next((picture.size for picture in pictures if not picture.fault), None)
    boxes, right = (), None
    try:
        validate_gold(record.reward_type, record.answer, record.choices, size)
        if record.reward_type == "iou" and size is not None:
            boxes = tuple(
                _box(*gold.coordinates, gold.label or "", size) for gold in parse_gold(record.answer)
            )
        if record.reward_type == "matching" and record.choices:
            right = _right_choice(record)
    except ValueError as error:  # GoldError, or a reward type that does not exist
        return ShownRecord(record, file, row, pictures, (), None, str(error))
    return ShownRecord(record, file, row, pictures, boxes, right, "")


def _right_choice(record: Record) -> int | None:
    """The option whose letter is scored as right: what the reward takes the gold to mean."""
    for number in range(min(26, len(record.choices))):
        response = f"<answer>{chr(ord('A') + number)}</answer>"
        if score("matching", response, record.answer, choices=record.choices).task == 1.0:
            return number
    return None


def _picture(content: bytes | None, longest: int) -> ShownPicture:
    from PIL import Image

    try:
        pixels = decode_image(content or b"")
    except ImageError as error:
        return ShownPicture(None, (0, 0), str(error))
    picture = Image.fromarray(pixels)
    size = picture.size
    picture.thumbnail((longest, longest))
    return ShownPicture(np.asarray(picture), size)


def _box(x1: float, y1: float, x2: float, y2: float, label: str, size: tuple[int, int]) -> ShownBox:
    return ShownBox(x1 / size[0], y1 / size[1], (x2 - x1) / size[0], (y2 - y1) / size[1], label)


def _in_turn(queues: Sequence[Sequence[Place]]) -> list[Place]:
    longest = max(map(len, queues), default=0)
    return [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "big")
