"""The quickstart mixture: small pictures that are drawn on the spot, and real scans of handwritten digits.

Three kinds of picture, each 112 x 112: coloured shapes, bar charts, and the 8 x 8 scans that ship with
scikit-learn (UCI "Optical Recognition of Handwritten Digits"). Every picture carries a few questions:

    matching    shapes_yes_no, shapes_choice, digits_choice
    chart       charts_value, charts_tallest
    iou         shapes_box
    open_ended  shapes_caption, charts_caption

Shapes lie on a grid of 7 pixels, so that a tiny model needs few number tokens for boxes.
`meta` holds the picture's name and a short `think`, which with the answer makes a whole gold response.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mixed_r1_ray.data import schema
from mixed_r1_ray.data.schema import Record, write_records

SIDE = 112  # pixels
CELL = 7  # pixels: shapes have their corners on this grid
COLOURS = {
    "red": (214, 39, 40),
    "green": (44, 160, 44),
    "blue": (31, 119, 180),
    "orange": (255, 150, 20),
    "purple": (148, 60, 190),
    "black": (30, 30, 30),
}
SHAPES = ("circle", "square", "triangle", "diamond")
QUADRANTS = ("top left", "top right", "bottom left", "bottom right")
NUM_HELD_OUT_SCANS = 400

# source, reward type, question, think, answer, choices
Question = tuple[str, str, str, str, str, tuple[str, ...] | None]


def build_quickstart_data(
    out_dir: str | Path, seed: int = 0, train_per_type: int = 4096, eval_per_type: int = 400
) -> tuple[Path, Path]:
    """Paths of train.parquet and eval.parquet, made unless the same code and arguments made them before.

    The splits share no picture: each draws from its own random stream and its own scans, and a held-out
    picture that also occurs in training is drawn again.
    """
    made_of = [Path(file).read_bytes() for file in (__file__, schema.__file__)]
    made_of.append(repr((seed, train_per_type, eval_per_type)).encode())
    key = hashlib.sha256(b"\0".join(made_of)).hexdigest()[:16]
    train, held_out = (
        Path(out_dir) / f"quickstart-{key}" / f"{split}.parquet" for split in ("train", "eval")
    )
    if not (train.is_file() and held_out.is_file()):
        seen: set[bytes] = set()
        for path, per_type in ((train, train_per_type), (held_out, eval_per_type)):
            write_records(path, generate_split(path.stem, seed, per_type, seen))
    return train, held_out


def generate_split(split: str, seed: int, per_type: int, seen: set[bytes]) -> Iterator[Record]:
    """`per_type` records of each reward type (rounded up to a multiple of 4).

    They are asked of per_type / 2 pictures of shapes, as many charts, and per_type / 4 scans.
    split: `train` or `eval`. seen: hashes of pictures that may not be drawn; those drawn here are added.
    """
    quarter = (per_type + 3) // 4
    kinds: dict[str, tuple[Callable, int]] = {
        "shapes": (_shapes_picture, 2 * quarter),
        "charts": (_charts_picture, 2 * quarter),
        "digits": (_digits_picture, quarter),
    }
    for number, (kind, (draw, num_pictures)) in enumerate(kinds.items()):
        rng = np.random.default_rng([seed, number, split == "eval"])
        for index in range(num_pictures):
            image, questions = _draw_new(draw, rng, split, index, seen)
            for place, (source, reward_type, question, think, answer, choices) in enumerate(questions):
                yield Record(
                    id=f"{split}-{kind}-{index:05d}-{place}",
                    source=source,
                    reward_type=reward_type,
                    images=(image,),
                    image_sizes=((SIDE, SIDE),),
                    question=question,
                    choices=choices,
                    answer=answer,
                    meta=json.dumps({"picture": f"{split}-{kind}-{index:05d}", "think": think}),
                )


def _draw_new(draw: Callable, rng: np.random.Generator, split: str, index: int, seen: set[bytes]):
    while True:
        picture, questions = draw(rng, split, index)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        digest = hashlib.sha256(picture.tobytes()).digest()
        if digest not in seen:
            seen.add(digest)
            return buffer.getvalue(), questions


def _shapes_picture(rng: np.random.Generator, split: str, index: int) -> tuple[Image.Image, list[Question]]:
    """Two or three shapes, no two alike in colour or kind, each within its own quadrant."""
    count = int(rng.integers(2, 4))
    colours = [str(colour) for colour in rng.permutation(list(COLOURS))]
    kinds = [str(kind) for kind in rng.permutation(SHAPES)]
    quadrants = sorted(rng.permutation(4)[:count].tolist())
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    boxes, described = [], []
    for colour, kind, quadrant in zip(colours, kinds, quadrants):
        size = int(rng.integers(4, 8))
        column, row = (int(value) for value in rng.integers(0, 9 - size, 2))
        left, top = (column + 8 * (quadrant % 2)) * CELL, (row + 8 * (quadrant // 2)) * CELL
        boxes.append([left, top, left + size * CELL, top + size * CELL])
        described.append(f"a {'large' if size > 5 else 'small'} {colour} {kind}")
        _draw_shape(ImageDraw.Draw(picture), kind, COLOURS[colour], boxes[-1])

    names = [f"{colour} {kind}" for colour, kind in zip(colours[:count], kinds)]
    places = [QUADRANTS[quadrant] for quadrant in quadrants]
    caption = " and ".join(described)
    questions: list[Question] = [
        ("shapes_box", "iou", f"Where is the {names[i]}? Answer with its box.", f"It is at the {places[i]}.",
         json.dumps(boxes[i]), None)
        for i in rng.permutation(count)[:2]
    ]  # fmt: skip
    questions.append(
        ("shapes_caption", "open_ended", "Describe the picture in one sentence.", f"I see {count} shapes.",
         f"{caption[0].upper()}{caption[1:]}.", None)
    )  # fmt: skip
    for ask in (_shapes_choice, _shapes_yes_no)[: 1 + index % 2]:
        asked = int(rng.integers(count))
        questions.append(ask(rng, names[asked], places[asked]))
    return picture, questions


def _shapes_yes_no(rng: np.random.Generator, name: str, place: str) -> Question:
    others = [other for other in QUADRANTS if other != place]
    asked, answer = (place, "yes") if rng.random() < 0.5 else (str(rng.choice(others)), "no")
    return (
        "shapes_yes_no",
        "matching",
        f"Is the {name} at the {asked}?",
        f"It is at the {place}.",
        answer,
        None,
    )


def _shapes_choice(rng: np.random.Generator, name: str, place: str) -> Question:
    options = tuple(str(option) for option in rng.permutation(QUADRANTS))
    question = f"In which corner is the {name}? {_lettered(options)}"
    return "shapes_choice", "matching", question, f"It is at the {place}.", place, options


def _charts_picture(rng: np.random.Generator, split: str, index: int) -> tuple[Image.Image, list[Question]]:
    """Three coloured bars over a labelled axis from 0 to 100, each an even number high."""
    colours = [str(colour) for colour in rng.permutation(list(COLOURS))[:3]]
    values = [int(value) for value in rng.permutation(np.arange(10, 101, 2))[:3]]
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    draw = ImageDraw.Draw(picture)
    base, height, left, step = 105, 98, 21, 30
    for tick in (0, 50, 100):
        level = base - height * tick // 100
        draw.line((left, level, SIDE, level), fill=(200, 200, 200))
        draw.text((left - 3, level), str(tick), fill=(90, 90, 90), anchor="rm", font_size=9)
    for position, (colour, value) in enumerate(zip(colours, values)):
        start = left + 4 + position * step
        draw.rectangle((start, base - height * value // 100, start + 20, base), fill=COLOURS[colour])

    listed = ", ".join(f"{colour} {value}" for colour, value in zip(colours, values))
    asked = int(rng.integers(3))
    return picture, [
        ("charts_value", "chart", f"What is the value of the {colours[asked]} bar?",
         f"The {colours[asked]} bar ends at {values[asked]}.", str(values[asked]), None),
        ("charts_tallest", "chart", "Which bar is the tallest? Answer with its colour.",
         f"The bars are {listed}.", colours[int(np.argmax(values))], None),
        ("charts_caption", "open_ended", "Describe the chart in one sentence.", "I see 3 bars.",
         f"A bar chart with {listed}.", None),
    ]  # fmt: skip


def _digits_picture(rng: np.random.Generator, split: str, index: int) -> tuple[Image.Image, list[Question]]:
    """One scan, dark on light, enlarged to 70-98 pixels somewhere in the picture."""
    scans, labels = _scans()
    last = len(scans) - NUM_HELD_OUT_SCANS
    scan = last + index % NUM_HELD_OUT_SCANS if split == "eval" else int(rng.integers(last))
    size = CELL * int(rng.integers(10, 15))
    left, top = (int(value) for value in rng.integers(0, SIDE - size + 1, 2))
    ink = Image.fromarray((255 - scans[scan] * 255 / 16).astype(np.uint8))
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    picture.paste(ink.resize((size, size), Image.Resampling.BICUBIC), (left, top))

    digit = str(labels[scan])
    others = [str(other) for other in rng.permutation(10) if str(other) != digit]
    options = [str(option) for option in rng.permutation([digit, *others[:3]])]
    question = f"Which digit is this? {_lettered(options)}"
    think = f"It looks like a {digit}."
    return picture, [("digits_choice", "matching", question, think, digit, tuple(options))]


@lru_cache(maxsize=1)
def _scans() -> tuple[np.ndarray, np.ndarray]:
    """1,797 scans (8, 8) of ink from 0 to 16, and what each shows."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return data.images, data.target


def _draw_shape(draw: ImageDraw.ImageDraw, kind: str, colour: tuple[int, int, int], box: list[int]) -> None:
    left, top, right, bottom = box[0], box[1], box[2] - 1, box[3] - 1  # PIL counts the last pixel in
    middle, centre = (left + right) / 2, (top + bottom) / 2
    if kind == "circle":
        draw.ellipse((left, top, right, bottom), fill=colour)
    elif kind == "square":
        draw.rectangle((left, top, right, bottom), fill=colour)
    elif kind == "triangle":
        draw.polygon([(middle, top), (right, bottom), (left, bottom)], fill=colour)
    else:
        draw.polygon([(middle, top), (right, centre), (middle, bottom), (left, centre)], fill=colour)


def _lettered(options: Iterable[str]) -> str:
    return " ".join(f"({letter}) {option}" for letter, option in zip("ABCDEFGH", options))
