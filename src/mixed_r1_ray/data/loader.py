"""Turns row numbers into prompts for the driver, one batch ahead. Pixels stay where they were made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace

from mixed_r1_ray.config import Config
from mixed_r1_ray.data.reader import BadRow, UsableRows, check_bad_fraction
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.remote import fetch
from mixed_r1_ray.types import Prompt


class PromptLoader:
    """Prepares batches of one split, each by all of a pool of data workers.

    `bad_rows` are all known so far, each once, however often it is drawn: those the reader found, then those whose
    pictures or length turn out unusable when they are prepared.
    """

    def __init__(
        self,
        workers: Sequence,
        split: str,
        config: Config,
        rows: UsableRows,
        known_bad_rows: Sequence[BadRow],
        on_bad_row: Callable[[BadRow], None],
    ):
        self.workers = workers
        self.split = split
        self.config = config
        self.rows = rows
        self.on_bad_row = on_bad_row
        self.bad_rows: list[BadRow] = list(known_bad_rows)
        self._num_known = len(known_bad_rows)
        self._prepared: set[int] = set()
        self._pending: dict[tuple[int, ...], list[list]] = {}

    def prefetch(self, indices: Sequence[int]) -> None:
        """Starts preparing the rows; a later `load` of the same rows finds them under way."""
        key = tuple(indices)
        if key and key not in self._pending:
            share = -(-len(key) // len(self.workers))
            shares = zip(self.workers, (key[first : first + share] for first in range(0, len(key), share)), strict=False)
            self._pending[key] = [self._prepare(worker, part) for worker, part in shares]

    def load(self, indices: Sequence[int]) -> list[Prompt]:
        """The rows as prompts, in order; bad rows are reported and left out."""
        key = tuple(indices)
        self.prefetch(key)
        answers = self._pending.pop(key, [])
        what, deadline_s = f"data workers preparing {self.split} rows", self.config.data.timeout_s
        heads = fetch([refs[0] for refs in answers], what=what, deadline_s=deadline_s)
        self._prepared.update(key)
        prompts = []
        for part, refs in zip(heads, answers, strict=True):
            images, inputs = refs[1 : 1 + len(part)], refs[1 + len(part) :]
            for head, image, input_ in zip(part, images, inputs, strict=True):
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

    def found(self) -> list[dict]:
        """Bad rows that were found while preparing, as JSON: what a checkpoint keeps of a loader."""
        return [asdict(bad) for bad in self.bad_rows[self._num_known :]]

    def restore(self, found: Sequence[dict], loaded: Iterable[Sequence[int]]) -> None:
        """Goes on where `found` was said, as if the batches `loaded` had been loaded here."""
        self.bad_rows += [BadRow(**bad) for bad in found]
        for batch in loaded:
            self._prepared.update(batch)
            if len(self._prepared) == len(self.rows):
                return

    def _prepare(self, worker, indices: Sequence[int]) -> list:
        places = tuple(map(self.rows.place, indices))
        return worker.prepare.options(num_returns=1 + 2 * len(places)).remote(self.split, places)

    def _report(self, bad: BadRow) -> None:
        if bad in self.bad_rows:
            return
        self.bad_rows.append(bad)
        self.on_bad_row(bad)
        found = self.bad_rows[self._num_known :]  # the reader has judged the rate of the others
        if len(found) > 10:  # a rate over fewer rows says little
            check_bad_fraction(self.split, found, len(self._prepared), self.config.data.max_bad_fraction)
