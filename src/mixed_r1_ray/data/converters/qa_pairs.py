"""The layout that PlotQA took over from FigureQA: SPLIT/qa_pairs….json, its figures in SPLIT/png/INDEX.png."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mixed_r1_ray.data.converters.annotations import stream_list
from mixed_r1_ray.data.converters.base import Row


def qa_pair_rows(path: Path, keep: tuple[str, ...] = ()) -> Iterator[Row]:
    """The questions of one such file, with their picture's place. keep: fields to take along, None if missing."""
    split = path.parent.name
    for number, values in enumerate(stream_list(path, "qa_pairs")):
        found = {
            "image": f"{split}/png/{values['image_index']}.png",
            "question": values["question_string"],
            "answer": values["answer"],
        }
        yield Row(f"{split}/{path.name}", number, f"{number:08d}", found | {name: values.get(name) for name in keep})
