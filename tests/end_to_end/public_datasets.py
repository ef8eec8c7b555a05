"""Six datasets in the files their makers publish, made of the quickstart's records, each with faults that are known.

Four record types, seven sources. Pictures of COCO are JPEG, others PNG, as they are published.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
from native_layouts import put_json, put_lines
from PIL import Image

from mixed_r1_ray.data.schema import Record


@dataclass
class Planted:
    """What is wrong with the datasets, by where it must be found."""

    skipped: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # converter -> reason -> files and rows
    faults: dict[str, str] = field(default_factory=dict)  # id -> field that `check` names
    copies: dict[frozenset[str], str] = field(default_factory=dict)  # ids of which one has to go -> stage of `select`
    held_out: set[str] = field(default_factory=set)  # ids of records whose picture is in the evaluation set

    def skip(self, converter: str, reason: str, place: str) -> None:
        self.skipped.setdefault(converter, {}).setdefault(reason, []).append(place)


BySource = dict[str, list[Record]]


def by_source(path: Path) -> BySource:
    """The quickstart's records by source, in order."""
    found: BySource = {}
    for row in pq.read_table(path).to_pylist():
        found.setdefault(row["source"], []).append(Record.from_row(row))
    return found


def make_datasets(folder: Path, train: BySource, held_out: BySource) -> Planted:
    """Writes figureqa/, aokvqa/, chartqa/, refcoco/, coco/ (with its captions) and scans/ to `folder`."""
    planted = Planted()
    for make in (_figureqa, _aokvqa, _chartqa, _refcoco, _coco_captions, _own_rows):
        make(folder, train, held_out, planted)
    return planted


def _figureqa(folder: Path, train: BySource, held_out: BySource, planted: Planted) -> None:
    """A picture cut short (to know a PNG's size is to read it), a question that stands twice, one of the evaluation set, a label that is none."""
    records = [*train["shapes_yes_no"], held_out["shapes_yes_no"][0]]
    pairs = [
        {"question_string": one.question, "answer": int(one.answer == "yes"), "image_index": number, "question_id": 0}
        for number, one in enumerate(records)
    ]
    pictures = [one.images[0] for one in records]
    pictures[3] = _cut(pictures[3])
    last = len(pairs)
    pairs += [pairs[0], pairs[1] | {"answer": 2}]
    put_json(folder / "figureqa/train1/qa_pairs.json", {"qa_pairs": pairs})
    _put_pictures(folder / "figureqa/train1/png", pictures, "{}.png")
    name = "figureqa-train-{:08d}".format
    planted.skip("figureqa", "its picture cannot be used", "train1/qa_pairs.json, row 3")
    planted.held_out.add(name(last - 1))
    planted.copies[frozenset({name(0), name(last)})] = "exact duplicate"
    planted.skip("figureqa", "its label is neither 0 nor 1", f"train1/qa_pairs.json, row {last + 1}")


def _aokvqa(folder: Path, train: BySource, held_out: BySource, planted: Planted) -> None:
    """As before; and an answer that is no choice, a row without one, and a question that says its answer."""
    records = [*train["shapes_choice"], held_out["shapes_choice"][0]]
    rows = [
        {
            "image_id": 100_000 + number,
            "question_id": f"q{number}",
            "question": one.question.partition(" (A)")[0],
            "choices": list(one.choices),
            "correct_choice_idx": one.choices.index(one.answer),
            "direct_answers": [one.answer] * 10,
        }
        for number, one in enumerate(records)
    ]
    pictures = [_jpeg(one.images[0]) for one in records]
    pictures[2] = _cut(pictures[2])
    rows[4]["question"] += f" The answer is {records[4].answer}."
    last = len(rows)
    rows += [
        rows[0] | {"question_id": "again"},
        rows[1] | {"question_id": "fifth", "correct_choice_idx": 4},
        {name: value for name, value in rows[1].items() if name != "correct_choice_idx"} | {"question_id": "none"},
    ]
    put_json(folder / "aokvqa/aokvqa_v1p0_train.json", rows)
    _put_pictures(folder / "coco/train2017", pictures, "{:012d}.jpg", 100_000)
    planted.faults |= {"aokvqa-train-q2": "images", "aokvqa-train-q4": "question"}
    planted.held_out.add(f"aokvqa-train-q{last - 1}")
    planted.copies[frozenset({"aokvqa-train-q0", "aokvqa-train-again"})] = "exact duplicate"
    planted.skip("aokvqa", "right option is not among its options", f"aokvqa_v1p0_train.json, row {last + 1}")
    planted.skip("aokvqa", "has no right option", f"aokvqa_v1p0_train.json, row {last + 2}")


def _chartqa(folder: Path, train: BySource, held_out: BySource, planted: Planted) -> None:
    """People's questions want values, generated ones the tallest bar; a copy has a smaller picture."""
    place = folder / "chartqa/ChartQA Dataset/train"
    for origin, source in (("human", "charts_value"), ("augmented", "charts_tallest")):
        records = [*train[source], held_out[source][0]]
        pictures = [one.images[0] for one in records] + [_smaller(records[0].images[0])]
        pictures[5] = _cut(pictures[5])
        rows = [
            {"imgname": f"{origin}_{number}.png", "query": one.question, "label": one.answer}
            for number, one in enumerate([*records, records[0]])
        ]
        last = len(rows)
        rows.append(rows[1] | {"label": " "})
        put_json(place / f"train_{origin}.json", rows)
        _put_pictures(place / "png", pictures, origin + "_{}.png")
        name = f"chartqa_{origin}-train-{{:06d}}".format
        planted.skip("chartqa", "its picture cannot be used", f"train_{origin}.json, row 5")
        planted.skip("chartqa", "its answer is empty", f"train_{origin}.json, row {last}")
        planted.held_out.add(name(last - 2))
        planted.copies[frozenset({name(0), name(last - 1)})] = "near duplicate"


def _refcoco(folder: Path, train: BySource, held_out: BySource, planted: Planted) -> None:
    """A box outside its picture, a ref without an object, a picture saved anew, and the faults of all."""
    records = [*train["shapes_box"], held_out["shapes_box"][0], train["shapes_box"][0]]
    pictures = [_jpeg(one.images[0]) for one in records[:-1]] + [_jpeg(records[-1].images[0], quality=60)]
    pictures[6] = _cut(pictures[6])
    refs, images, annotations = [], [], []
    for number, one in enumerate(records):
        left, top, right, bottom = json.loads(one.answer)
        picture, phrase = 200_000 + number, one.question.removeprefix("Where is the ").partition("?")[0]
        name = f"COCO_train2014_{picture:012d}"
        images.append({"id": picture, "file_name": f"{name}.jpg", "width": 112, "height": 112})
        annotations.append({"id": number, "image_id": picture, "bbox": [left, top, right - left, bottom - top]})
        sentence = {"raw": phrase.title(), "sent": phrase, "sent_id": number, "tokens": phrase.split()}
        ids = {"ref_id": number, "ann_id": number, "image_id": picture, "category_id": 1, "sent_ids": [number]}
        refs.append(ids | {"split": "train", "file_name": f"{name}_{number}.jpg", "sentences": [sentence]})
    annotations[8]["bbox"] = [100.0, 100.0, 40.0, 40.0]
    refs.append(refs[0] | {"ref_id": len(refs), "ann_id": 99_999})
    put_json(folder / "refcoco/refs(unc).json", refs)
    put_json(folder / "refcoco/instances.json", {"images": images, "annotations": annotations})
    _put_pictures(folder / "coco/train2014", pictures, "COCO_train2014_{:012d}.jpg", 200_000)
    last = len(records) - 1
    planted.faults |= {"refcoco-train-6-0": "images", "refcoco-train-8-0": "answer"}
    planted.held_out.add(f"refcoco-train-{last - 1}-0")
    planted.copies[frozenset({"refcoco-train-0-0", f"refcoco-train-{last}-0"})] = "near duplicate"
    planted.skip("refcoco", "its object is not in instances.json", f"refs(unc).json, row {last + 1}")


def _coco_captions(folder: Path, train: BySource, held_out: BySource, planted: Planted) -> None:
    """A picture without a caption, one that is not there, one saved anew, and the faults of all."""
    records = [*train["shapes_caption"], *train["charts_caption"], held_out["shapes_caption"][0]]
    pictures = [_jpeg(one.images[0]) for one in records] + [_jpeg(records[0].images[0], quality=60)]
    pictures[7] = _cut(pictures[7])
    captions = [one.answer for one in [*records, records[0]]]
    numbers = range(300_000, 300_000 + len(captions) + 2)
    put_json(
        folder / "coco/annotations/captions_train2017.json",
        {
            "images": [{"id": number, "file_name": f"{number:012d}.jpg"} for number in numbers],
            "annotations": [
                {"id": place, "image_id": number, "caption": text}
                for place, (number, text) in enumerate(zip(numbers[:-1], [*captions, "A picture that is lost."]))
            ],
        },
    )
    _put_pictures(folder / "coco/train2017", pictures, "{:012d}.jpg", 300_000)
    name, last = "coco_captions-train-{}".format, numbers[len(captions) - 1]
    planted.faults[name(300_007)] = "images"
    planted.held_out.add(name(last - 1))
    planted.copies[frozenset({name(300_000), name(last)})] = "near duplicate"
    planted.skip("coco_captions", "its picture is not there", f"captions_train2017.json, row {len(captions)}")
    planted.skip("coco_captions", "has no caption", f"captions_train2017.json, row {len(captions) + 1}")


def _own_rows(folder: Path, train: BySource, held_out: BySource, planted: Planted) -> None:
    """JSON lines under their own names: an answer that is no choice, a line cut short, a name given twice."""
    records = [*train["digits_choice"], held_out["digits_choice"][0]]
    rows = [
        {
            "name": f"scan-{number}",
            "prompt": "Which digit is this?",
            "options": list(one.choices),
            "label": one.answer,
            "file": f"scans/{number}.png",
        }
        for number, one in enumerate(records)
    ]
    rows[1]["label"] = "none of these"
    rows[2]["name"] = "scan-0"
    put_lines(folder / "scans/scans.jsonl", *rows, json.dumps(rows[3])[:-9])
    _put_pictures(folder / "scans/scans", [one.images[0] for one in records], "{}.png")
    planted.faults |= {"scan-1": "answer", "scan-0": "id"}
    planted.held_out.add(f"scan-{len(records) - 1}")
    planted.skip("jsonl", "is not JSON", f"scans.jsonl, row {len(rows)}")


def _put_pictures(folder: Path, pictures: Sequence[bytes], name: str, first: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(pictures, first):
        (folder / name.format(number)).write_bytes(data)


def _cut(data: bytes) -> bytes:
    return data[: len(data) * 6 // 10]


def _jpeg(data: bytes, quality: int = 92) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(data)).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _smaller(data: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(data)).resize((90, 90), Image.Resampling.LANCZOS).save(buffer, "PNG")
    return buffer.getvalue()
