"""The data actor: decodes pictures and prepares model inputs once, for engine, reference and learner alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import ray

from mixed_r1_ray.config import Config
from mixed_r1_ray.data.images import ImageError, decode_image
from mixed_r1_ray.data.reader import BadRow, RecordTable, UsableRows
from mixed_r1_ray.data.schema import Record
from mixed_r1_ray.types import Prompt, PromptInputs
from mixed_r1_ray.vlm.base import VLMAdapter
from mixed_r1_ray.vlm.families import load_adapter
from mixed_r1_ray.whereabouts import observed


@dataclass(frozen=True, slots=True)
class SplitInfo:
    """The usable and the bad rows of one split."""

    rows: UsableRows
    bad_rows: tuple[BadRow, ...]


@dataclass(frozen=True, slots=True)
class PreparedPrompt:
    """A prompt without its references, and what they will refer to."""

    prompt: Prompt
    images: tuple[np.ndarray, ...]
    inputs: PromptInputs


@ray.remote(max_restarts=-1)
@observed
class DataWorker:
    """Reads a run's splits, one row at a time: what it holds does not grow with them.

    It keeps nothing else: where its process dies, Ray starts another and repeats the call.
    """

    def __init__(self, config: Config, splits: dict[str, str]):
        import torch

        torch.set_num_threads(1)
        self.config = config
        self.adapter: VLMAdapter = load_adapter(config.model)
        data = config.data
        self.tables = {
            name: RecordTable(path, data.max_bad_fraction, data.cache_dir) for name, path in splits.items()
        }

    def describe(self, split: str) -> SplitInfo:
        """Looks at all rows of a split, without their pictures. One worker does it for all."""
        table = self.tables[split]
        return SplitInfo(table.rows, tuple(table.bad_rows))

    def shards(self, split: str) -> list[tuple[str, int]]:
        """Name and number of rows of each file, as this worker's node has them."""
        return [(file.name, len(file)) for file in self.tables[split].files]

    @ray.method(max_task_retries=3)
    def prepare(self, split: str, places: Sequence[tuple[int, int]]) -> tuple:
        """Returns 1 + 2 n objects for n rows: a list of Prompt or BadRow, then each row's images, then its inputs.

        places: file and row number of each row.
        """
        table = self.tables[split]
        return separated([self._prepare_row(table, *place) for place in places])

    @ray.method(max_task_retries=3)
    def pictures(self, split: str, ids: Sequence[str]) -> dict[str, bytes]:
        """The first picture of each record as its file holds it; records without one are left out."""
        return self.tables[split].first_pictures(ids)

    def _prepare_row(self, table: RecordTable, file: int, row: int) -> PreparedPrompt | BadRow:
        where = table.files[file].name, row
        return prepare_record(table.record_at(file, row), where, self.adapter, self.config)


def separated(prepared: Sequence[PreparedPrompt | BadRow]) -> tuple:
    """As an actor returns n rows, in 1 + 2 n objects: a list of Prompt or BadRow, each row's images, its inputs."""
    usable = [row if isinstance(row, PreparedPrompt) else None for row in prepared]
    heads = [row.prompt if isinstance(row, PreparedPrompt) else row for row in prepared]
    return heads, *(row and row.images for row in usable), *(row and row.inputs for row in usable)


def prepare_record(
    record: Record, where: tuple[str, int], adapter: VLMAdapter, config: Config
) -> PreparedPrompt | BadRow:
    """The record as a prompt with its pictures, or why it can be none. where: file name and row, to name it by."""
    try:
        images = tuple(decode_image(image) for image in record.images)
    except ImageError as error:
        return BadRow(*where, "images", str(error))
    sizes = tuple((image.shape[1], image.shape[0]) for image in images)
    if record.image_sizes and sizes != record.image_sizes:
        return BadRow(*where, "image_sizes", f"says {record.image_sizes}, the pictures have {sizes}")
    try:
        prepared = prepare_prompt(record, images, adapter, config)
    except ValueError as error:  # a placeholder in the question, a picture too long for its height, ...
        return BadRow(*where, "prompt", str(error))
    longest = config.model.max_length - config.rollout.max_new_tokens
    if prepared.prompt.num_tokens > longest:
        reason = (
            f"the prompt has {prepared.prompt.num_tokens} tokens with its pictures; model.max_length "
            f"{config.model.max_length} - rollout.max_new_tokens {config.rollout.max_new_tokens} leaves {longest}"
        )
        return BadRow(*where, "question", reason)
    return prepared


def prepare_prompt(
    record: Record, images: tuple[np.ndarray, ...], adapter: VLMAdapter, config: Config
) -> PreparedPrompt:
    """The record as prompt text, tokens and vision inputs."""
    question = config.data.template.replace("{question}", record.question)
    text = adapter.prompt_text(question, len(images), config.data.system)
    inputs = adapter.encode(text, images)
    sizes = tuple((image.shape[1], image.shape[0]) for image in images)
    prompt = Prompt(
        prompt_id=record.id,
        source=record.source,
        reward_type=record.reward_type,
        question=record.question,
        answer=record.answer,
        choices=record.choices,
        image_sizes=sizes,
        box_frame=adapter.box_frame(*sizes[0]) if sizes else None,
        text=text,
        num_tokens=len(inputs.input_ids),
    )
    return PreparedPrompt(prompt, images, inputs)
