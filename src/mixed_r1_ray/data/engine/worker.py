"""The data actor of stage 3: prepares rows of any input file as the trainer would, and holds none of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import ray

from mixed_r1_ray.config import Config
from mixed_r1_ray.data.engine.chunks import Chunk
from mixed_r1_ray.data.reader import BadRow
from mixed_r1_ray.data.record_files import InputFile, as_records, read_batches
from mixed_r1_ray.data.schema import SCHEMA, Record
from mixed_r1_ray.data.worker import prepare_record, separated
from mixed_r1_ray.remote import fetch
from mixed_r1_ray.types import Prompt
from mixed_r1_ray.vlm.families import load_adapter

BATCH_ROWS = 64


@ray.remote(max_restarts=-1)
class ChunkWorker:
    """Reads rows with their pictures when they are asked for, and keeps nothing: Ray restarts it and repeats the call."""

    def __init__(self, config: Config):
        import torch

        torch.set_num_threads(1)
        self.config, self.adapter = config, load_adapter(config.model)

    @ray.method(max_task_retries=3)
    def prepare(self, file: InputFile, rows) -> tuple:
        """1 + 2 n objects for n rows, as DataWorker.prepare."""
        prepared = []
        for _, batch in read_batches(file, SCHEMA.names, rows, BATCH_ROWS):
            for values in as_records(batch, file).to_pylist():
                where = file.path.name, int(rows[len(prepared)])
                prepared.append(prepare_record(Record.from_row(values), where, self.adapter, self.config))
        return separated(prepared)


class ChunkLoader:
    """Prepares chunks on the data actors, each row by whichever has its turn."""

    def __init__(self, workers: Sequence, timeout_s: float):
        self.workers, self.timeout_s = itertools.cycle(workers), timeout_s
        self._pending: dict[str, list] = {}

    def prefetch(self, chunk: Chunk) -> None:
        """Starts preparing a chunk; `load` finds it under way."""
        if chunk.made_of not in self._pending:
            options = {"num_returns": 1 + 2 * len(chunk.rows)}
            answer = next(self.workers).prepare.options(**options).remote(chunk.file, chunk.rows)
            self._pending[chunk.made_of] = answer

    def load(self, chunk: Chunk) -> list[Prompt | BadRow]:
        """A prompt for each row of the chunk, or why it can be none."""
        self.prefetch(chunk)
        heads, *parts = self._pending.pop(chunk.made_of)
        what = f"data worker preparing {chunk.file.path.name} from row {chunk.rows[0]}"
        found = fetch(heads, what=what, deadline_s=self.timeout_s)
        images, inputs = parts[: len(found)], parts[len(found) :]
        return [
            head if isinstance(head, BadRow) else replace(head, images=image, inputs=input_)
            for head, image, input_ in zip(found, images, inputs, strict=True)
        ]
