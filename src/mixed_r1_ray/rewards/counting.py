"""The counting reward: how many there are, as digits or in words."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mixed_r1_ray.rewards.parse import MAX_SHORT_ANSWER, GoldError, TaskScore, unwrap, without_lead_in

COUNTING_MODES = ("exact", "relative")

_ONES = dict(zip("one two three four five six seven eight nine".split(), range(1, 10)))
_TEENS = dict(
    zip(
        "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split(),
        range(10, 20),
    )
)
_TENS = dict(zip("twenty thirty forty fifty sixty seventy eighty ninety".split(), range(20, 100, 10)))
_MULTIPLES = {"dozen": 12, "hundred": 100, "thousand": 1000}
_VALUES = {"a": 1, "zero": 0} | _ONES | _TEENS | _TENS

_SMALL = (
    rf"(?:(?:{'|'.join(_TENS)})(?:[\s-](?:{'|'.join(_ONES)})\b)?|{'|'.join((*_TEENS, *_ONES, 'zero'))})\b"
)
_HUNDREDS = rf"(?:(?:a|{_SMALL})\s+hundred\b(?:\s+(?:and\s+)?{_SMALL})?|{_SMALL})"
_WORDS = re.compile(
    rf"\b(?:(?:a|{_SMALL})\s+dozen\b"
    rf"|(?:a|{_HUNDREDS})\s+thousand\b(?:\s+(?:and\s+)?{_HUNDREDS})?|{_HUNDREDS})"
)
_DIGITS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,15}(?:\.0{1,6})?")
_ORDINAL = re.compile(r"[0-9]{1,6}(?:st|nd|rd|th)")
_PRONOUN_BEFORE = re.compile(r"\b(?:the|this|that|another|each|every|any|no|other|which|last|left|right)\s+$")
_HEDGE_BEFORE = re.compile(
    r"(?:\b(?:than|least|most|up to|over|under|above|below|between|not|either|nor|minus|half|maybe)|n['’]t"
    r"|[-−<>≤≥±])\s*(?:a\s+)?$"
)
_NO_COUNT_AFTER = re.compile(
    r"\s*(?:[+%°/]|or (?:more|fewer|less|so)\b|and a half\b|point\b"
    r"|(?:hundred|thousand|million|billion|dozen|percent)s?\b)"
)
_NONE = re.compile(r"\s*no\W*$|.*?\b(?:none\b|no (?!one\b|idea\b|clue\b|way\b|more\b|less\b|fewer\b)[a-z])")


@dataclass(frozen=True, slots=True)
class Count:
    """What a text says the number is (None: none, or no single one), and how it was read."""

    value: int | None
    why: str


def parse_gold(gold: str) -> int:
    """The number of things, from 0 on: `3`, `three`. Raises GoldError."""
    count = read_count(gold)
    if count.value is None:
        raise GoldError(f"gold {gold[:80]!r} is no count ({count.why}); expected one whole number from 0 on")
    return count.value


def score_answer(answer: str, golds: tuple[int, ...], mode: str = "exact") -> TaskScore:
    """exact: 1 for the same number, else 0. relative: 1 - |p - g| / max(p, g) (choice). Best gold counts."""
    if len(answer) > MAX_SHORT_ANSWER:
        return TaskScore(0.0, f"the answer has {len(answer)} characters, no count")
    count = read_count(answer)
    if count.value is None:
        return TaskScore(0.0, f"read no count ({count.why})")
    value = max(_closeness(count.value, gold, mode) for gold in golds)
    verdict = "right" if value == 1.0 else "wrong" if value == 0.0 else f"{value:.3f}"
    return TaskScore(value, f"read {count.value}: {verdict}")


def read_count(text: str) -> Count:
    """The one whole number that a text names, as often as it likes, in digits or English words."""
    bare = unwrap(text)
    bare = re.sub(r"[()\[\]{}:;=\"“”]", " ", without_lead_in(bare).casefold())
    said: set[int] = set()
    for piece in re.finditer(r"[^\s]*[0-9][^\s]*", bare):
        word = piece[0].strip(".,!?'’…*~≈#")
        if _ORDINAL.fullmatch(word):
            continue
        if not _DIGITS.fullmatch(word) or _is_hedged(bare, piece.start(), piece.end()):
            return Count(None, f"{piece[0][:30]!r} is no whole number, or hedged")
        said.add(int(float(word.replace(",", ""))))
    for found in _WORDS.finditer(bare):
        if found[0] == "one" and _PRONOUN_BEFORE.search(bare[max(0, found.start() - 12) : found.start()]):
            continue
        if _is_hedged(bare, found.start(), found.end()):
            return Count(None, f"{found[0][:30]!r} is hedged, or part of another number")
        said.add(_value(found[0]))
    if not said and _NONE.match(bare):
        said.add(0)
    if len(said) != 1:
        return Count(
            None, f"several numbers: {', '.join(map(str, sorted(said)[:5]))}" if said else "no number"
        )
    return Count(said.pop(), "one number")


def _is_hedged(text: str, start: int, end: int) -> bool:
    before, after = text[max(0, start - 16) : start], text[end : end + 16]
    return bool(_HEDGE_BEFORE.search(before) or _NO_COUNT_AFTER.match(after))


def _value(words: str) -> int:
    """`two thousand and one` → 2001."""
    total = current = 0
    for word in re.split(r"[\s-]+", words):
        if word == "thousand":
            total, current = total + current * 1000, 0
        elif word in _MULTIPLES:
            current *= _MULTIPLES[word]
        elif word != "and":
            current += _VALUES[word]
    return total + current


def _closeness(predicted: int, gold: int, mode: str) -> float:
    if predicted == gold:
        return 1.0
    return 0.0 if mode == "exact" else 1.0 - abs(predicted - gold) / max(predicted, gold)
