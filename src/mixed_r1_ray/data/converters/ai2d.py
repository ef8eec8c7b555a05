"""AI2D: multiple-choice questions about science diagrams."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from mixed_r1_ray.data.converters.annotations import read_json
from mixed_r1_ray.data.converters.base import Converter, Example, Row, Skip, first_file, picture_of
from mixed_r1_ray.data.converters.multiple_choice import multiple_choice


class AI2D(Converter):
    """Original: questions/PICTURE.json, images/, abc_images/ and ai2d_test_ids.csv
    (prior.allenai.org/projects/ diagram-understanding, ai2d-all.zip). Hub: lmms-lab/ai2d (question, options,
    answer: an index as text, image).

    A question file maps each question to {abcLabel, answerTexts, correctAnswer, questionId}. Where abcLabel
    holds, the options are letters that stand in abc_images/ in place of the diagram's words. Pictures whose
    number is in ai2d_test_ids.csv are the split `test`, all others `train`; without that file there is no
    `test`.
    """

    name = "ai2d"
    reward_type = "matching"
    homepage = "https://prior.allenai.org/projects/diagram-understanding"
    native_files = "questions/*.json"
    columns = ("image", "question", "options", "answer")

    def native_rows(self, folder: Path, split: str) -> Iterator[Row] | None:
        root = next((place for place in (folder, folder / "ai2d") if (place / "questions").is_dir()), None)
        return None if root is None else self._rows(root, "" if root == folder else "ai2d/", split)

    def _rows(self, root: Path, prefix: str, split: str) -> Iterator[Row]:
        listed = first_file(root, "ai2d_test_ids.csv")
        held_out = set(listed.read_text(encoding="utf-8").split()) if listed else set()
        for path in sorted((root / "questions").glob("*.json")):
            content = read_json(path)
            picture = content["imageName"]
            if (Path(picture).stem in held_out) != (split == "test"):
                continue
            for number, (question, values) in enumerate(content["questions"].items()):
                folder = "abc_images" if values.get("abcLabel") else "images"
                yield Row(
                    path.name,
                    number,
                    values["questionId"],
                    {
                        "image": f"{prefix}{folder}/{picture}",
                        "question": question,
                        "options": values["answerTexts"],
                        "answer": values["correctAnswer"],
                    },
                )

    def examples(self, row: Row) -> Iterable[Example]:
        try:
            correct = int(row.values["answer"])
        except (TypeError, ValueError):
            raise Skip("its answer is no index") from None
        asked = multiple_choice(row.values["question"], row.values["options"], correct)
        yield Example((picture_of(row.values["image"]),), asked.question, asked.answer, asked.choices)
