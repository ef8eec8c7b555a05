"""Geometry3K: plane geometry problems with a diagram."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from mixed_r1_ray.data.converters.annotations import read_json
from mixed_r1_ray.data.converters.base import Converter, Example, Row, picture_of
from mixed_r1_ray.data.converters.multiple_choice import multiple_choice


class Geometry3K(Converter):
    """Original: SPLIT/NUMBER/data.json and img_diagram.png (github.com/lupantech/InterGPS, data/geometry3k).
    Hub: hiyouga/geometry3k (images, problem, answer in LaTeX).

    The original has four options and the letter of the right one: matching. Its compact_text and
    compact_choices say the same as problem_text and choices without markup, and are preferred. The hub form
    has no options: its answers are scored as `math`; its `<image>` marks where the picture goes and is
    removed.
    """

    name = "geometry3k"
    reward_type = "matching"
    homepage = "https://lupantech.github.io/inter-gps"
    native_files = "SPLIT/NUMBER/data.json"
    columns = ("images", "problem", "answer")

    def native_rows(self, folder: Path, split: str) -> Iterator[Row] | None:
        root = next(
            (place for place in (folder, folder / "geometry3k") if any(place.glob(f"{split}/*/data.json"))),
            None,
        )
        return None if root is None else self._rows(folder, root / split)

    def _rows(self, folder: Path, root: Path) -> Iterator[Row]:
        for path in sorted(
            root.glob("*/data.json"), key=lambda path: (len(path.parent.name), path.parent.name)
        ):
            diagram = path.with_name("img_diagram.png").relative_to(folder).as_posix()
            yield Row(
                path.relative_to(folder).as_posix(),
                0,
                path.parent.name,
                read_json(path) | {"diagram": diagram},
            )

    def examples(self, row: Row) -> Iterable[Example]:
        values = row.values
        if "diagram" not in values:
            yield self._hub_example(values)
            return
        question = values.get("compact_text") or values["problem_text"]
        options = values.get("compact_choices") or values["choices"]
        letter = str(values["answer"]).strip().upper()
        asked = multiple_choice(question, options, "ABCDEFGH".find(letter) if len(letter) == 1 else None)
        yield Example(((values["diagram"],),), asked.question, asked.answer, asked.choices)

    def _hub_example(self, values: dict) -> Example:
        images = tuple(picture_of(image) for image in values["images"])
        question = values["problem"].replace("<image>", "").strip()
        return Example(images, question, str(values["answer"]).strip(), reward_type="math")
