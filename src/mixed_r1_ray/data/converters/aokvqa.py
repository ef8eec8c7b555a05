"""A-OKVQA: questions about COCO pictures that want knowledge of the world."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from mixed_r1_ray.data.converters.annotations import read_list
from mixed_r1_ray.data.converters.base import Converter, Example, Row, coco_places, first_file, picture_of
from mixed_r1_ray.data.converters.multiple_choice import multiple_choice


class AOKVQA(Converter):
    """Original: aokvqa_v1p0_SPLIT.json (github.com/allenai/aokvqa) and COCO 2017 pictures,
    SPLIT2017/%012d.jpg. Hub: HuggingFaceM4/A-OKVQA (image, question_id, question, choices,
    correct_choice_idx).

    The test split has no correct_choice_idx; its rows are left out. direct_answers are not used.
    """

    name = "aokvqa"
    reward_type = "matching"
    homepage = "https://github.com/allenai/aokvqa"
    native_files = "aokvqa_v1p0_SPLIT.json"
    columns = ("image", "question_id", "question", "choices", "correct_choice_idx")

    def native_rows(self, folder: Path, split: str) -> Iterator[Row] | None:
        path = first_file(folder, f"aokvqa_v1p0_{split}.json", f"aokvqa/aokvqa_v1p0_{split}.json")
        return None if path is None else self._rows(path, split)

    def _rows(self, path: Path, split: str) -> Iterator[Row]:
        for number, values in enumerate(read_list(path)):
            yield Row(path.name, number, values["question_id"], values | {"split": split})

    def examples(self, row: Row) -> Iterable[Example]:
        values = row.values
        if "image_id" in values:
            image = coco_places(f"{int(values['image_id']):012d}.jpg", f"{values['split']}2017")
        else:
            image = picture_of(values["image"])
        asked = multiple_choice(values["question"], values["choices"], values.get("correct_choice_idx"))
        yield Example((image,), asked.question, asked.answer, asked.choices, key=values["question_id"])
