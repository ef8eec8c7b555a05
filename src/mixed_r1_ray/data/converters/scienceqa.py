"""ScienceQA: school questions with lectures and, for about half of them, a picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from mixed_r1_ray.data.converters.annotations import read_json
from mixed_r1_ray.data.converters.base import Converter, Example, Row, first_file, picture_of
from mixed_r1_ray.data.converters.multiple_choice import multiple_choice


class ScienceQA(Converter):
    """Original: problems.json, pid_splits.json and images/SPLIT/PID/image.png
    (github.com/lupantech/ScienceQA, data/scienceqa). Hub: derek-thomas/ScienceQA, lmms-lab/ScienceQA (image,
    question, choices, answer, hint).

    Rows without a picture are left out; a hint is part of the question, the solution is not.
    """

    name = "scienceqa"
    reward_type = "matching"
    homepage = "https://scienceqa.github.io"
    native_files = "problems.json (beside pid_splits.json)"
    columns = ("image", "question", "choices", "answer", "hint")

    def native_rows(self, folder: Path, split: str) -> Iterator[Row] | None:
        path = first_file(folder, "problems.json", "data/scienceqa/problems.json")
        return None if path is None else self._rows(path, split)

    def _rows(self, path: Path, split: str) -> Iterator[Row]:
        problems = read_json(path)
        splits = path.with_name("pid_splits.json")
        own = [pid for pid, problem in problems.items() if problem.get("split") == split]
        for number, pid in enumerate(read_json(splits).get(split, []) if splits.is_file() else own):
            problem = problems[pid]
            name = problem.get("image")
            inside = f"{problem.get('split', split)}/{pid}/{name}"
            places = (f"images/{inside}", inside, f"data/scienceqa/images/{inside}") if name else None
            yield Row(path.name, number, pid, problem | {"image": places})

    def examples(self, row: Row) -> Iterable[Example]:
        values = row.values
        question = "\n".join(
            part for part in ((values.get("hint") or "").strip(), values["question"]) if part
        )
        asked = multiple_choice(question, values["choices"], values["answer"])
        meta = {name: values[name] for name in ("subject", "topic", "grade") if values.get(name)}
        yield Example((picture_of(values["image"]),), asked.question, asked.answer, asked.choices, meta=meta)
