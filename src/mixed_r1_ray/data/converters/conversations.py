"""Long descriptions in the form of conversations: LLaVA's detail_23k and ShareGPT4V."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from mixed_r1_ray.data.converters.annotations import read_list
from mixed_r1_ray.data.converters.base import Converter, Example, Row, Skip, coco_places, first_file


class LLaVADetail(Converter):
    """Original: detail_23k.json with id, image, conversations of {from, value} (huggingface.co/datasets/
    liuhaotian/LLaVA-Instruct-150K) and COCO train2017 or train2014 pictures.

    The first question and answer make the record; `<image>`, which stands before or after the question, goes.
    There is no split but `train`.
    """

    name = "llava_detail"
    reward_type = "open_ended"
    homepage = "https://huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K"
    native_files = "detail_23k.json"
    files: ClassVar[tuple[str, ...]] = ("detail_23k.json",)

    def native_rows(self, folder: Path, split: str) -> Iterator[Row] | None:
        path = first_file(folder, *self.files) if split == "train" else None
        return None if path is None else self._rows(path)

    def _rows(self, path: Path) -> Iterator[Row]:
        for number, values in enumerate(read_list(path)):
            # Ids repeat: ShareGPT4V has several texts of a picture.
            yield Row(path.name, number, f"{number:06d}", values)

    def examples(self, row: Row) -> Iterable[Example]:
        values = row.values
        if not values.get("image"):
            raise Skip("has no picture")
        turns = values["conversations"]
        if len(turns) < 2 or turns[0]["from"] != "human" or turns[1]["from"] != "gpt":
            raise Skip("does not begin with a question and an answer")
        question = turns[0]["value"].replace("<image>", "").strip()
        answer = turns[1]["value"].strip()
        if not question or not answer:
            raise Skip("its question or answer is empty")
        yield Example((self.places(values["image"]),), question, answer, meta={"image": values["image"]})

    def places(self, name: str) -> tuple[str, ...]:
        """Where the picture of that name may lie."""
        return (name, *coco_places(name, "train2017"), *coco_places(f"COCO_train2014_{name}", "train2014"))


class ShareGPT4V(LLaVADetail):
    """Original: sharegpt4v_instruct_gpt4-vision_cap100k.json (huggingface.co/datasets/Lin-Chen/ShareGPT4V),
    the form of LLaVA; `image` says where a picture lies: coco/train2017/…, sam/images/…,
    llava/llava_pretrain/….
    """

    name = "sharegpt4v"
    homepage = "https://huggingface.co/datasets/Lin-Chen/ShareGPT4V"
    native_files = "sharegpt4v_instruct_gpt4-vision_cap100k.json"
    files = ("sharegpt4v_instruct_gpt4-vision_cap100k.json",)

    def places(self, name: str) -> tuple[str, ...]:
        return name, f"data/{name}"
