"""The chart reward: relaxed accuracy (Methani et al. 2020; Masry et al. 2022) with its known holes closed."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from mixed_r1_ray.rewards.numbers import Number, is_non_finite, parse_number, read_number, within
from mixed_r1_ray.rewards.parse import (
    MAX_SHORT_ANSWER,
    GoldError,
    TaskScore,
    normalise,
    unwrap,
    without_lead_in,
)

CHART_MODES = ("relaxed", "exact", "edit_distance")
TOLERANCE = 0.05  # relative, on numbers
_AMOUNT = re.compile(r"how (?:many|much)|number of|percent|%", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Item:
    """A number, or a text in normalised form."""

    number: Number | None
    form: str


@dataclass(frozen=True, slots=True)
class ChartGold:
    """The items of a gold list, or the one item of a scalar."""

    items: tuple[Item, ...]
    is_list: bool
    percent_axis: bool  # the question speaks of percent


def parse_gold(gold: str, question: str | None = None) -> ChartGold:
    """A number, a text, or a list of them as `[Red, Blue]` or JSON. Raises GoldError.

    A gold such as 2010 is a year unless the question asks for an amount (choice).
    """
    text = gold.strip()
    is_list = text.startswith("[") and text.endswith("]")
    parts = _split_list(text) if is_list else [text]
    asks_amount = bool(question and _AMOUNT.search(question))
    items = tuple(_gold_item(part, asks_amount) for part in parts)
    if not items:
        raise GoldError(f"gold {gold[:80]!r} is an empty list")
    return ChartGold(items, is_list, bool(question and re.search("percent|%", question, re.IGNORECASE)))


def score_any(
    answer: str, golds: tuple[ChartGold, ...], mode: str = "relaxed", ordered: bool = False
) -> TaskScore:
    """The best of several golds; arguments as of score_answer."""
    return max((score_answer(answer, gold, mode, ordered) for gold in golds), key=lambda score: score.value)


def score_answer(answer: str, gold: ChartGold, mode: str = "relaxed", ordered: bool = False) -> TaskScore:
    """relaxed, exact: 0 or 1. edit_distance: normalised Levenshtein similarity of the normalised texts.

    ordered: the elements of a list have to come in the gold's order.
    """
    if len(answer) > MAX_SHORT_ANSWER:
        return TaskScore(0.0, f"the answer has {len(answer)} characters, no number or short text")
    if not answer.strip() or is_non_finite(unwrap(answer)):
        return TaskScore(0.0, f"read {answer[:80]!r}: neither a number nor a text")
    if mode == "edit_distance":
        return _similarity(answer, gold)
    tolerance = TOLERANCE if mode == "relaxed" else 0.0
    if gold.is_list:
        return _score_list(answer, gold, tolerance, ordered)
    right, read = _matches(answer, gold.items[0], tolerance, gold.percent_axis)
    return TaskScore(float(right), f"read {read}: {'right' if right else 'wrong'}")


def _gold_item(text: str, asks_amount: bool) -> Item:
    bare = unwrap(text)
    form = normalise(bare)
    if not any(char.isalnum() for char in form) or is_non_finite(bare):
        raise GoldError(f"gold {text[:80]!r} is neither a finite number nor a text")
    number = parse_number(_trim(text))
    if number is not None and number.is_year and asks_amount:
        number = Number(number.value)
    return Item(number, form)


def _matches(answer: str, gold: Item, tolerance: float, percent_axis: bool) -> tuple[bool, str]:
    bare = unwrap(answer)
    if gold.number is not None:
        texts = dict.fromkeys((_trim(answer), bare, without_lead_in(bare)))
        number = next(
            (number for number in map(parse_number, texts) if number is not None), None
        ) or read_number(bare)
        if number is None:
            return False, f"no number in {bare[:80]!r}"
        percent = " %" if number.percent else ""
        return within(number, gold.number, tolerance, percent_axis), f"{number.value:g}{percent}"
    forms = [normalise(text) for text in dict.fromkeys((bare, without_lead_in(bare)))]
    return gold.form in forms, f"text {forms[0][:80]!r}"


def _score_list(answer: str, gold: ChartGold, tolerance: float, ordered: bool) -> TaskScore:
    lines = (_BULLET.sub("", line) for line in answer.strip().splitlines())
    parts = _split_list(without_lead_in(unwrap("; ".join(lines))), len(gold.items))
    if len(parts) != len(gold.items):
        return TaskScore(0.0, f"read {len(parts)} elements where the gold has {len(gold.items)}: wrong")
    right = [[_matches(part, item, tolerance, gold.percent_axis)[0] for item in gold.items] for part in parts]
    paired = all(row[place] for place, row in enumerate(right)) if ordered else _can_pair(right)
    return TaskScore(float(paired), f"read {len(parts)} elements: {'right' if paired else 'wrong'}")


def _can_pair(right: list[list[bool]]) -> bool:
    """Whether every element can be given a gold of its own."""
    if len(right) == 1:
        return right[0][0]
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(right, maximize=True)
    return all(right[row][column] for row, column in zip(rows, columns))


_BULLET = re.compile(r"\s*(?:[-*•]|[0-9]{1,3}[.)])\s+")
_SEPARATOR = re.compile(r"\s*[;\n|]\s*|\s*,\s+(?:and\s+)?", re.IGNORECASE)
_AND = re.compile(r"\s+(?:and|&)\s+", re.IGNORECASE)


def _split_list(text: str, expected: int | None = None) -> list[str]:
    """Elements of `[a, b]`, JSON or not, or of `a, b and c`.

    expected: how many there should be. It decides whether `and` parts two elements (not within `rock and
    roll`), and whether `100,200` is one number or two.
    """
    text = text.strip()
    try:
        values = json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        values = None
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        return values
    if text.startswith(("[", "(")) and text.endswith(("]", ")")):
        text = text[1:-1].strip()
    parts = [part.strip() for part in _SEPARATOR.split(text) if part.strip()]
    if expected and len(parts) < expected:
        parts = [piece for part in parts for piece in _AND.split(part)]
    if len(parts) == 1 and (expected != 1 if expected else parse_number(text) is None):
        parts = [part.strip() for part in text.split(",") if part.strip()]
    return parts


def _similarity(answer: str, gold: ChartGold) -> TaskScore:
    from rapidfuzz.distance import Levenshtein

    bare = unwrap(answer)
    target = " ".join(item.form for item in gold.items)
    value = max(
        Levenshtein.normalized_similarity(normalise(t), target) for t in {bare, without_lead_in(bare)}
    )
    return TaskScore(value, f"edit similarity {value:.3f}")


def _trim(text: str) -> str:
    return text.strip().rstrip(".,;:!?").strip()
