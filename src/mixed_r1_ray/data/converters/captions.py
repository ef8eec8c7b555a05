"""Captions that people wrote: COCO Captions (short, five a picture) and DOCCI (long, one a picture)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from mixed_r1_ray.data.converters.annotations import json_lines, read_json
from mixed_r1_ray.data.converters.base import (
    Converter,
    Example,
    Row,
    Skip,
    coco_places,
    first_file,
    picture_of,
)


class COCOCaptions(Converter):
    """Original: annotations/captions_SPLIT2017.json (or 2014) and SPLIT2017/ (cocodataset.org, data format).
    Hub: lmms-lab/COCO-Caption and COCO-Caption2017 (question_id, image, answer: the captions).

    All captions of a picture are golds of one record: the best counts.
    """

    name = "coco_captions"
    reward_type = "open_ended"
    homepage = "https://cocodataset.org"
    native_files = "annotations/captions_SPLIT2017.json or captions_SPLIT2014.json"
    columns = ("image", "answer")

    def native_rows(self, folder: Path, split: str) -> Iterator[Row] | None:
        for year in ("2017", "2014"):
            name = f"captions_{split}{year}.json"
            if path := first_file(folder, f"annotations/{name}", name):
                return self._rows(path, f"{split}{year}")
        return None

    def _rows(self, path: Path, pictures: str) -> Iterator[Row]:
        content = read_json(path)
        captions: dict[int, list[str]] = {}
        for annotation in content["annotations"]:
            captions.setdefault(annotation["image_id"], []).append(annotation["caption"])
        for number, image in enumerate(content["images"]):
            values = {
                "image": coco_places(image["file_name"], pictures),
                "answer": captions.get(image["id"], []),
            }
            yield Row(path.name, number, str(image["id"]), values)

    def examples(self, row: Row) -> Iterable[Example]:
        captions = list(
            dict.fromkeys(" ".join(caption.split()) for caption in row.values["answer"] if caption.strip())
        )
        if not captions:
            raise Skip("has no caption")
        answer = captions[0] if len(captions) == 1 else json.dumps({"any_of": captions}, ensure_ascii=False)
        question = "Describe this picture in one sentence."
        yield Example((picture_of(row.values["image"]),), question, answer)


class DOCCI(Converter):
    """Original: docci_descriptions.jsonlines with example_id, split, image_file, description, and images/
    (google.github.io/docci). Hub: google/docci, the same fields with image.
    """

    name = "docci"
    reward_type = "open_ended"
    homepage = "https://google.github.io/docci"
    native_files = "docci_descriptions.jsonlines"
    columns = ("image", "example_id", "description")

    def native_rows(self, folder: Path, split: str) -> Iterator[Row] | None:
        path = first_file(folder, "docci_descriptions.jsonlines")
        return None if path is None else self._rows(path, split)

    def _rows(self, path: Path, split: str) -> Iterator[Row]:
        for number, values in json_lines(path):
            if isinstance(values, str):
                yield Row(path.name, number, f"line{number}", {"fault": values})
            elif values["split"] == split:
                name = values["image_file"]
                yield Row(
                    path.name, number, values["example_id"], values | {"image": (f"images/{name}", name)}
                )

    def examples(self, row: Row) -> Iterable[Example]:
        values = row.values
        if "fault" in values:
            raise Skip(values["fault"])
        description = values["description"].strip()
        if not description:
            raise Skip("has no caption")
        yield Example(
            (picture_of(values["image"]),),
            "Describe this picture in detail.",
            description,
            key=values["example_id"],
        )
