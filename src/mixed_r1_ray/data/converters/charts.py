"""Questions about charts: ChartQA and PlotQA."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mixed_r1_ray.data.converters.annotations import read_list
from mixed_r1_ray.data.converters.base import Converter, Example, Row, Skip, first_file, picture_of
from mixed_r1_ray.data.converters.qa_pairs import qa_pair_rows

_ORIGINS = ("human", "augmented")


class ChartQA(Converter):
    """Original: SPLIT/SPLIT_human.json, SPLIT/SPLIT_augmented.json with imgname, query, label, and SPLIT/png/
    (github.com/vis-nlp/ChartQA, "ChartQA Dataset"). Hub: HuggingFaceM4/ChartQA (image, query, label: a list,
    human_or_machine: 0 or 1); lmms-lab/ChartQA says question, answer, type instead.

    The sources are chartqa_human and chartqa_augmented. Labels stay as they are written (`23%`, `2015`,
    `[Red, Blue]`): the chart reward reads them; a hub label of several members becomes a list.
    """

    name = "chartqa"
    reward_type = "chart"
    homepage = "https://github.com/vis-nlp/ChartQA"
    native_files = "SPLIT/SPLIT_human.json or SPLIT/SPLIT_augmented.json"
    columns = ("image",)

    def native_rows(self, folder: Path, split: str) -> Iterator[Row] | None:
        places = [folder / parent / split for parent in ("", "ChartQA Dataset")]
        paths = [(place / f"{split}_{origin}.json", origin) for place in places for origin in _ORIGINS]
        found = [(path, origin) for path, origin in paths if path.is_file()]
        return self._rows(folder, found) if found else None

    def _rows(self, folder: Path, paths: Sequence[tuple[Path, str]]) -> Iterator[Row]:
        for path, origin in paths:
            pictures = (path.parent / "png").relative_to(folder).as_posix()
            for number, values in enumerate(read_list(path)):
                row = values | {"image": f"{pictures}/{values['imgname']}", "type": origin}
                yield Row(path.name, number, f"{number:06d}", row)

    def examples(self, row: Row) -> Iterable[Example]:
        values = row.values
        origin = values.get("type")
        if origin is None:
            origin = _ORIGINS[int(values["human_or_machine"])]
        origin = origin.removesuffix("_test")  # lmms-lab: human_test, augmented_test
        question = values["query"] if "query" in values else values["question"]
        label = values["label"] if "label" in values else values["answer"]
        yield Example(
            (picture_of(values["image"]),), question, chart_answer(label), source=f"chartqa_{origin}"
        )


class PlotQA(Converter):
    """Original: SPLIT/qa_pairs_V2.json (or V1) with question_string, answer, image_index, and
    SPLIT/png/INDEX.png (github.com/NiteshMethani/PlotQA, PlotQA_Dataset.md).

    V2 has 28.9 million questions, about 130 a plot: take a share with --fraction. Answers are numbers, texts,
    Yes and No; a number such as 2010.0 is written 2010, others to six digits, well inside the reward's 5 %.
    """

    name = "plotqa"
    reward_type = "chart"
    homepage = "https://github.com/NiteshMethani/PlotQA"
    native_files = "SPLIT/qa_pairs_V2.json, qa_pairs_V1.json or qa_pairs.json"

    def native_rows(self, folder: Path, split: str) -> Iterator[Row] | None:
        path = first_file(folder, *(f"{split}/qa_pairs{version}.json" for version in ("_V2", "_V1", "")))
        return None if path is None else qa_pair_rows(path, keep=("template",))

    def examples(self, row: Row) -> Iterable[Example]:
        values = row.values
        meta = {"template": values["template"]} if values.get("template") else {}
        yield Example(
            (picture_of(values["image"]),), values["question"], chart_answer(values["answer"]), meta=meta
        )


def chart_answer(label: object) -> str:
    """A label as the chart reward reads it. Raises Skip for an empty one and for NaN."""
    if isinstance(label, Sequence) and not isinstance(label, str):
        members = [chart_answer(member) for member in label]
        return (
            members[0]
            if len(members) == 1
            else json.dumps(members, ensure_ascii=False)
            if members
            else _empty()
        )
    if isinstance(label, bool):
        return "Yes" if label else "No"
    if isinstance(label, float):
        if not math.isfinite(label):
            raise Skip("its answer is not a finite number")
        return str(int(label)) if label.is_integer() else f"{label:.6g}"
    text = "" if label is None else str(label).strip()
    return text or _empty()


def _empty() -> str:
    raise Skip("its answer is empty")
