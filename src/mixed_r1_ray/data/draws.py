"""Draws rows out of the order by reward type, so that a step can have more of one type than its batch holds."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class PromptDraws:
    """Each reward type's rows in the order in which the batches would bring them, with a place kept in every type.

    A batch has the order's mixture of types and takes the next rows of each; without refills these are the order's own
    batches. A refill takes more, so that later batches begin further on: every row is still drawn once before any of
    its type is drawn again. `state` is all that a continued run needs.
    """

    def __init__(self, batch: Callable[[int], list[int]], reward_types: Sequence[str]):
        """batch: the order, rows of step 1, 2, ...; reward_types: of every row."""
        self._order, self._types = batch, reward_types
        self._begin()

    def _begin(self) -> None:
        self.num_read = 0  # batches of the order
        self._waiting: dict[str, deque[int]] = defaultdict(deque)  # read and not yet reached
        self._reached: dict[str, int] = defaultdict(int)  # rows of a type that were drawn or passed over
        self._passed: dict[str, list[int]] = defaultdict(list)  # would have come twice in a step: first of a later one
        self._batches: dict[int, list[int]] = {}  # of the step asked for last and those to come

    def batch(self, step: int) -> list[int]:
        """The rows that a step begins with, all different; they count as drawn. Steps are asked for in rising order."""
        self._batches = {known: rows for known, rows in self._batches.items() if known >= step}
        if step not in self._batches:
            self._batches[step] = self.refill(self.types(self._order(step)), taken=[])
        return list(self._batches[step])

    def types(self, rows: Sequence[int]) -> list[str]:
        """The reward type of each row."""
        return [self._types[row] for row in rows]

    def refill(self, types: Sequence[str], taken: Sequence[int]) -> list[int]:
        """Another row of each of `types`, none of them in `taken`; fewer where a type has no more."""
        seen, rows = set(taken), []
        for reward_type in types:
            row = self._next(reward_type, seen)
            if row is not None:
                seen.add(row)
                rows.append(row)
        return rows

    def state(self) -> dict[str, Any]:
        """JSON to continue from."""
        return {
            "reached": dict(self._reached),
            "passed": {kind: rows for kind, rows in self._passed.items() if rows},
            "batches": {str(step): rows for step, rows in self._batches.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` returned, and forgets all else."""
        self._begin()
        for reward_type, reached in state["reached"].items():
            for _ in range(reached):
                self._reach(reward_type)
        self._passed.update({kind: list(rows) for kind, rows in state["passed"].items()})
        self._batches = {int(step): list(rows) for step, rows in state["batches"].items()}

    def _next(self, reward_type: str, seen: set[int]) -> int | None:
        passed = self._passed[reward_type]
        for place, row in enumerate(passed):
            if row not in seen:
                return passed.pop(place)
        num_seen = sum(self._types[row] == reward_type for row in seen)
        for _ in range(2 * num_seen + 1):  # of so many in a row, one is new or there is none: an epoch has each once
            row = self._reach(reward_type)
            if row not in seen:
                return row
            passed.append(row)
        return None

    def _reach(self, reward_type: str) -> int:
        while not self._waiting[reward_type]:
            self.num_read += 1
            for row in self._order(self.num_read):
                self._waiting[self._types[row]].append(row)
        self._reached[reward_type] += 1
        return self._waiting[reward_type].popleft()
