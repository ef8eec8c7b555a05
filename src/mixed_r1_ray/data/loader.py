"""Turns row numbers into prompts for the driver, one batch ahead. Pixels stay where they were made."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

from mixed_r1_ray.config import Config
from mixed_r1_ray.data.reader import BadRow, check_bad_fraction
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.remote import fetch
from mixed_r1_ray.types import Prompt


class PromptLoader:
    """Prepares batches of one split on a pool of data workers, round robin.

    `bad_rows` are all known so far, each once, however often it is drawn: those the reader found, then those whose
    pictures or length turn out unusable when they are prepared.
    """

    def __init__(
        self,
        workers: Sequence,
        split: str,
        config: Config,
        known_bad_rows: Sequence[BadRow],
        on_bad_row: Callable[[BadRow], None],
    ):
        self._turn = itertools.cycle(workers)
        self.split = split
        self.config = config
        self.on_bad_row = on_bad_row
        self.bad_rows: list[BadRow] = list(known_bad_rows)
        self._num_known = len(known_bad_rows)
        self._prepared: set[int] = set()
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
        self._prepared.update(key)
        prompts = []
        for head, image, input_ in zip(heads, images, inputs, strict=True):
            if isinstance(head, BadRow):
                self._report(head)
            else:
                prompts.append(replace(head, images=image, inputs=input_))
        return prompts

    def load_batch(self, indices: Sequence[int]) -> list[Prompt]:
        """Like `load`, of rows that something must come of. Raises UserError, with a reason, where all are bad."""
        prompts = self.load(indices)
        if not prompts:
            raise UserError(
                f"{self.split}: none of the {len(indices)} rows drawn for a batch can be used; one of them: "
                f"{self.bad_rows[-1]} (all are named in the warnings)"
            )
        return prompts

    def _report(self, bad: BadRow) -> None:
        if bad in self.bad_rows:
            return
        self.bad_rows.append(bad)
        self.on_bad_row(bad)
        found = self.bad_rows[self._num_known :]  # the reader has judged the rate of the others
        if len(found) > 10:  # a rate over fewer rows says little
            check_bad_fraction(self.split, found, len(self._prepared), self.config.data.max_bad_fraction)
