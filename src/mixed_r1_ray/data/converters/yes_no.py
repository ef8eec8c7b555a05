"""Datasets whose answers are yes or no: VSR and FigureQA."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from mixed_r1_ray.data.converters.annotations import json_lines
from mixed_r1_ray.data.converters.base import (
    Converter,
    Example,
    Row,
    Skip,
    coco_places,
    first_file,
    picture_of,
)
from mixed_r1_ray.data.converters.qa_pairs import qa_pair_rows

_ANSWERS = {0: "no", 1: "yes"}


def yes_or_no(label: object) -> str:
    """`yes` for 1 and true, `no` for 0 and false. Raises Skip."""
    if label not in _ANSWERS:
        raise Skip("its label is neither 0 nor 1")
    return _ANSWERS[label]


class VSR(Converter):
    """Visual spatial reasoning. Original: SPLIT.jsonl with image, caption, label (github.com/cambridgeltl/
    visual-spatial-reasoning, data/splits) and COCO 2017 pictures in images/ or trainval2017/. Hub:
    cambridgeltl/vsr_random and vsr_zeroshot, the same JSON lines.

    A caption becomes a question whose answer is its label. image_link tells train2017 from val2017.
    """

    name = "vsr"
    reward_type = "matching"
    homepage = "https://github.com/cambridgeltl/visual-spatial-reasoning"
    native_files = "SPLIT.jsonl"
    columns = ("image", "caption", "label")

    def native_rows(self, folder: Path, split: str) -> Iterator[Row] | None:
        path = first_file(folder, f"{split}.jsonl", f"data/splits/random/{split}.jsonl")
        return None if path is None else self._rows(path)

    def _rows(self, path: Path) -> Iterator[Row]:
        for number, values in json_lines(path):
            yield Row(
                path.name, number, f"{number:06d}", values if isinstance(values, dict) else {"fault": values}
            )

    def examples(self, row: Row) -> Iterable[Example]:
        values = row.values
        if "fault" in values:
            raise Skip(values["fault"])
        image = values["image"]
        if isinstance(image, str):
            folder = Path(values.get("image_link") or "").parent.name
            image = coco_places(image, *filter(None, (folder, "trainval2017")))
        question = f'Is this true of the picture: "{values["caption"].strip()}" Answer yes or no.'
        yield Example(
            (picture_of(image),),
            question,
            yes_or_no(values["label"]),
            meta={"relation": values.get("relation")},
        )


class FigureQA(Converter):
    """Yes-or-no questions about drawn figures. Original: SPLIT/qa_pairs.json and SPLIT/png/INDEX.png, the
    splits being train1, validation1, ... (microsoft.com/en-us/research/project/figureqa-dataset, its README).
    """

    name = "figureqa"
    reward_type = "matching"
    homepage = "https://www.microsoft.com/en-us/research/project/figureqa-dataset"
    native_files = "SPLIT/qa_pairs.json (SPLIT, or SPLIT1: train1)"

    def native_rows(self, folder: Path, split: str) -> Iterator[Row] | None:
        path = first_file(folder, f"{split}/qa_pairs.json", f"{split}1/qa_pairs.json")
        return None if path is None else qa_pair_rows(path)

    def examples(self, row: Row) -> Iterable[Example]:
        question = f"{row.values['question']} Answer yes or no."
        yield Example((picture_of(row.values["image"]),), question, yes_or_no(row.values["answer"]))
