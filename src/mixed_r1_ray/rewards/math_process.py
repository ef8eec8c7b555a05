"""The math reward from outside: golds and answers go to a process that may hang over them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from mixed_r1_ray.rewards.golds import several_golds
from mixed_r1_ray.rewards.parse import MAX_SHORT_ANSWER, GoldError, TaskScore
from mixed_r1_ray.rewards.process import KillableProcess

TIMEOUT_S = 5.0  # for one gold or answer
_WHOLE_NUMBER = re.compile(r"\s*(\$?)(?:\\boxed\{\s*([-+]?[0-9]{1,15})\s*\}|([-+]?[0-9]{1,15}))\.?\1\.?\s*")
_PLAIN_NUMBER = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?")  # needs no process to be known as readable


class MathVerifier:
    """Reads golds and scores answers, in a process that is started when first needed.

    timeout_s: for one gold or answer.
    """

    def __init__(self, timeout_s: float = TIMEOUT_S):
        self.timeout_s = timeout_s
        self._process = KillableProcess(("math",), "math")
        self._faults: dict[str, str | None] = {}  # of golds that were checked

    def check_gold(self, gold: str) -> tuple[str, ...]:
        """The texts that count as right. Raises GoldError for one that math-verify cannot read."""
        texts = several_golds(gold)
        for text in texts:
            fault = self._fault(text.strip())
            if fault is not None:
                raise GoldError(f"gold {text[:80]!r} {fault}")
        return texts

    def score(self, pairs: Sequence[tuple[tuple[str, ...], str]]) -> list[TaskScore | None | str]:
        """A score a (golds, answer); the best gold counts. A text instead: why it could not be scored.

        An answer that takes too long scores 0: the gold was found to be harmless before, so it is the
        answer's fault. If the process dies, or was lost too often, that says nothing about the answer:
        unscored (choice).
        """
        decided = [_compare_whole_numbers(golds, answer) for golds, answer in pairs]
        asked = [pair for pair, score in zip(pairs, decided) if score is None and _is_short(pair[1])]
        items = [["answer", gold, answer] for golds, answer in asked for gold in golds]
        answers = iter(self._process.call(items, self.timeout_s) if items else ())
        return [
            score or _joined([next(answers) for _ in golds] if _is_short(answer) else [], answer)
            for score, (golds, answer) in zip(decided, pairs)
        ]

    def close(self) -> None:
        """Ends the process."""
        self._process.close()

    def _fault(self, gold: str) -> str | None:
        if _PLAIN_NUMBER.fullmatch(gold):
            return None
        if gold not in self._faults:
            if len(self._faults) >= 4096:
                self._faults.clear()
            (answer,) = self._process.call([["gold", gold]], self.timeout_s)
            self._faults[gold] = answer.detail if answer.failure or not answer.value else None
        return self._faults[gold]


@cache
def shared_verifier() -> MathVerifier:
    """The one that whoever has none of his own uses; it ends with this process."""
    return MathVerifier()


def _compare_whole_numbers(golds: Sequence[str], answer: str) -> TaskScore | None:
    """What math-verify would say, without asking it, where all are whole numbers; None where one is not."""
    numbers = [_whole_number(text) for text in (answer, *golds)]
    if None in numbers:
        return None
    read, *right = numbers
    return TaskScore(float(read in right), f"read '{read}': {'right' if read in right else 'wrong'}")


def _whole_number(text: str) -> int | None:
    found = _WHOLE_NUMBER.fullmatch(text)
    return int(found[2] or found[3]) if found else None


def _is_short(answer: str) -> bool:
    return len(answer) <= MAX_SHORT_ANSWER


def _joined(answers: list, text: str) -> TaskScore | str:
    """Of the answers by gold, the best."""
    if not answers:
        return TaskScore(0.0, f"the answer has {len(text)} characters, no short answer")
    scores = [
        TaskScore(0.0, f"{answer.detail} to compare") if answer.failure == "overran" else
        TaskScore(answer.value, answer.detail) for answer in answers if answer.failure in (None, "overran")
    ]  # fmt: skip
    lost = next((answer for answer in answers if answer.failure in ("died", "skipped", "raised")), None)
    best = max(scores, key=lambda score: score.value, default=None)
    if lost is not None and (best is None or best.value == 0.0):
        return f"math: {lost.detail}"
    return best
