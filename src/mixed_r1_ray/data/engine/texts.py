"""When two questions, and two answers, are the same one written differently."""

from __future__ import annotations

import json
import re
import unicodedata

from mixed_r1_ray.rewards import GoldError
from mixed_r1_ray.rewards.iou import parse_gold

_TOKENS = re.compile(r"(?:(?<![\w.])[-+])?\d+(?:[.,:]\d+)*%?|\w+|[<>=≤≥+*/^]|(?<=[\d\s])-(?=[\d\s])")
BOX_UNITS = 1000  # boxes are kept in thousandths of the picture's sides
BOX_SLACK = 20  # choice: 2 %, what rounding after a resize may move a corner


def normalised(text: str) -> str:
    """Its words and numbers in lower case, one space between them; punctuation is dropped, signs of numbers stay."""
    plain = unicodedata.normalize("NFKC", text).casefold().replace("\u2212", "-")
    return " ".join(_TOKENS.findall(plain)) or " ".join(plain.split())


def near_questions(left: str, right: str, least: float) -> bool:
    """Whether two normalised questions have the same words in the same order, but for their spelling.

    least: similarity of two spellings of a word, 0 to 1 (rapidfuzz's normalised indel similarity). Words with
    digits must be equal. A fuzzy ratio of whole questions would take `left` for `right`: one word is all the
    difference between many questions about one picture (choice).
    """
    from rapidfuzz import fuzz

    mine, theirs = left.split(), right.split()
    return len(mine) == len(theirs) and all(
        one == other
        or (one.isalpha() and other.isalpha() and fuzz.ratio(one, other) >= 100 * least)
        for one, other in zip(mine, theirs, strict=True)
    )


def normalised_answer(reward_type: str, answer: str, size: tuple[int, int] | None) -> str:
    """The gold, comparable between sizes of a picture: boxes in thousandths of its sides, a JSON list."""
    if reward_type != "iou" or size is None:
        return normalised(answer)
    sides = (*size, *size)
    try:
        boxes = [box.coordinates for box in parse_gold(answer)]
    except GoldError:  # `check` names it; here it is equal to itself alone
        return normalised(answer)
    return json.dumps(
        [[round(BOX_UNITS * value / side) for value, side in zip(box, sides, strict=True)] for box in boxes]
    )


def near_answers(left: str, right: str) -> bool:
    """Whether two normalised answers are equal, boxes within 2 % of the picture's sides."""
    if left == right:
        return True
    if not (left.startswith("[[") and right.startswith("[[")):
        return False
    mine, theirs = json.loads(left), json.loads(right)
    return len(mine) == len(theirs) and all(
        abs(one - other) <= BOX_SLACK
        for box, its in zip(mine, theirs, strict=True)
        for one, other in zip(box, its, strict=True)
    )
