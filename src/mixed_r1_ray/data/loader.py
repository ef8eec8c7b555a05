"""Turns row numbers into prompts for the driver, one batch ahead. Pixels stay where they were made."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

from mixed_r1_ray.config import Config
from mixed_r1_ray.data.reader import BadRow, check_bad_fraction
from mixed_r1_ray.remote import fetch
from mixed_r1_ray.types import Prompt


class PromptLoader:
    """Prepares batches of one split on a pool of data workers, round robin."""

    def __init__(self, workers: Sequence, split: str, config: Config, on_bad_row: Callable[[BadRow], None]):
        self._turn = itertools.cycle(workers)
        self.split = split
        self.config = config
        self.on_bad_row = on_bad_row
        self.bad_rows: list[BadRow] = []
        self.num_prepared = 0
        self._pending: dict[tuple[int, ...], list] = {}

    def prefetch(self, indices: Sequence[int]) -> None:
        """Starts preparing the rows; a later `load` of the same rows finds them under way."""
        key = tuple(indices)
        if key and key not in self._pending:
            self._pending[key] = next(self._turn).prepare.options(num_returns=1 + 2 * len(key)).remote(self.split, key)

    def load(self, indices: Sequence[int]) -> list[Prompt]:
        """The rows as prompts, in order; bad rows are reported and left out."""
        key = tuple(indices)
        self.prefetch(key)
        refs = self._pending.pop(key)
        heads = fetch(refs[0], what=f"data worker preparing {self.split} rows", deadline_s=self.config.data.timeout_s)
        images, inputs = refs[1 : 1 + len(key)], refs[1 + len(key) :]
        self.num_prepared += len(key)
        prompts = []
        for head, image, input_ in zip(heads, images, inputs, strict=True):
            if isinstance(head, BadRow):
                self._report(head)
            else:
                prompts.append(replace(head, images=image, inputs=input_))
        return prompts

    def _report(self, bad: BadRow) -> None:
        self.bad_rows.append(bad)
        self.on_bad_row(bad)
        if len(self.bad_rows) > 10:  # a rate over fewer rows says little
            check_bad_fraction(self.split, self.bad_rows, self.num_prepared, self.config.data.max_bad_fraction)
