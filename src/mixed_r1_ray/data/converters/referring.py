"""RefCOCO, RefCOCO+ and RefCOCOg: phrases that name one object of a COCO picture, and its box."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from mixed_r1_ray.data.converters.annotations import read_json, read_list
from mixed_r1_ray.data.converters.base import (
    Converter,
    Example,
    Row,
    Skip,
    coco_places,
    first_file,
    picture_of,
)
from mixed_r1_ray.errors import UserError


class RefCOCO(Converter):
    """Original: refs(unc).p with instances.json (github.com/lichengunc/refer) and COCO train2014 pictures.
    Hub: jxu124/refcoco (ref_id, sentences, bbox as x1 y1 x2 y2, image_path; no pictures inside) and
    lmms-lab/RefCOCO (question_id, image, answer: the phrases, bbox as x y width height; no train split).

    refs(…).p is a pickle, which runs whatever its maker wrote into it when it is read: it is refused, and
    refs(…).json, the same list as JSON, read in its place. A ref has several sentences: each makes a record,
    equal ones once. Its own file_name is no picture's (`…_581857_16.jpg`, with the object's number): the
    picture's name is taken from instances.json. COCO boxes, x y width height, become x1 y1 x2 y2.
    """

    name = "refcoco"
    reward_type = "iou"
    homepage = "https://github.com/lichengunc/refer"
    native_files = "refs(unc).json or refs(google).json, with instances.json"
    columns = ("bbox",)
    folder_names: ClassVar[tuple[str, ...]] = ("refcoco",)
    split_by: ClassVar[tuple[str, ...]] = ("unc", "google")

    def native_rows(self, folder: Path, split: str) -> Iterator[Row] | None:
        places = [folder, *(folder / name for name in self.folder_names)]
        for place in places:
            for by in self.split_by:
                if (place / f"refs({by}).json").is_file():
                    return self._rows(place, place / f"refs({by}).json", split)
        for place in places:
            if pickled := first_file(place, *(f"refs({by}).p" for by in self.split_by)):
                raise UserError(
                    f"{pickled}: is a pickle, which could run any code; it is not read. Put the same list "
                    f"as JSON beside it as {pickled.with_suffix('.json').name} (docs/data.md says how), or "
                    "use the hub form"
                )
        return None

    def _rows(self, place: Path, path: Path, split: str) -> Iterator[Row]:
        instances = read_json(place / "instances.json") if (place / "instances.json").is_file() else None
        if instances is None:
            raise UserError(
                f"{place / 'instances.json'}: is not there; it holds the boxes that {path.name} refers to"
            )
        pictures = {image["id"]: image["file_name"] for image in instances["images"]}
        boxes = {annotation["id"]: annotation["bbox"] for annotation in instances["annotations"]}
        for number, ref in enumerate(read_list(path)):
            if ref["split"] != split:
                continue
            found = {"picture": pictures.get(ref["image_id"]), "bbox": boxes.get(ref["ann_id"])}
            yield Row(
                path.name,
                number,
                str(ref["ref_id"]),
                {"ref_id": ref["ref_id"], "sentences": ref["sentences"]} | found,
            )

    def examples(self, row: Row) -> Iterable[Example]:
        values = row.values
        if values["bbox"] is None:
            raise Skip("its object is not in instances.json")
        if "ref_id" not in values:  # lmms-lab
            image, box = picture_of(values["image"]), corners(values["bbox"])
            phrases, key = values["answer"], str(values["question_id"])
        else:
            native = "picture" in values
            image = self._places(values["picture"] if native else Path(values["image_path"]).name)
            box = corners(values["bbox"]) if native else [float(number) for number in values["bbox"]]
            phrases, key = map(_phrase, values["sentences"]), str(values["ref_id"])
        for place, phrase in enumerate(dict.fromkeys(phrase.strip() for phrase in phrases)):
            if phrase:
                question = f"Where in the picture is this: {phrase}? Give its bounding box."
                yield Example((image,), question, box_answer(box), key=f"{key}-{place}")

    def _places(self, file_name: str | None) -> tuple[str, ...]:
        if file_name is None:
            raise Skip("its picture is not in instances.json")
        return (*coco_places(file_name, "train2014"), f"images/mscoco/images/train2014/{file_name}")


class RefCOCOPlus(RefCOCO):
    """As RefCOCO, in refcoco+/; hub: jxu124/refcocoplus, lmms-lab/RefCOCOplus. Its phrases name no places."""

    name = "refcoco_plus"
    folder_names = ("refcoco+",)


class RefCOCOg(RefCOCO):
    """As RefCOCO, in refcocog/; hub: jxu124/refcocog, lmms-lab/RefCOCOg.

    refs(umd).json is preferred: the google split shares pictures between train and val.
    """

    name = "refcocog"
    native_files = "refs(umd).json or refs(google).json, with instances.json"
    folder_names = ("refcocog",)
    split_by = ("umd", "google")


def corners(box: Sequence[float]) -> list[float]:
    """[x, y, width, height] as [x1, y1, x2, y2]."""
    x, y, width, height = map(float, box)
    return [x, y, x + width, y + height]


def box_answer(box: Sequence[float]) -> str:
    """A gold of one box: JSON, original pixels, to a hundredth."""
    return json.dumps([round(number, 2) for number in box])


def _phrase(sentence: dict | str) -> str:
    """The phrase in plain spelling; `raw` has the annotator's."""
    return sentence if isinstance(sentence, str) else sentence.get("sent") or sentence["raw"]
