"""Finds questions that say their own answer: what a policy learns from them is to copy."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from mixed_r1_ray.rewards import GoldError
from mixed_r1_ray.rewards.golds import several_golds
from mixed_r1_ray.rewards.parse import normalise

MIN_CAPTION_WORDS = 4  # shorter golds of captions may stand in a question by chance (choice)
_TAG = re.compile(r"<answer>(.+?)</answer>|\\boxed\{([^{}]+)\}", re.IGNORECASE | re.DOTALL)
_SAID = re.compile(
    r"(?:correct |right |final |gold )?(?:answer|solution)(?:\s*:|\s+is:?)\s+(.+)", re.IGNORECASE
)
_LETTER = re.compile(r"[(\[]?([A-Za-z])(?:[)\].:]|$)")


def find_giveaway(reward_type: str, question: str, answer: str, choices: Sequence[str] | None) -> str | None:
    """How the question gives its answer away, or None.

    It does where it says `the answer is …` or `answer: …`, `<answer>…</answer>` or `\\boxed{…}` with the
    gold; where the caption to be written stands in it; and where the box to be found does. That the gold is
    one of the options that are listed, or a word of the question (`is it black or white?`), is no fault
    (choice).
    """
    golds = _forms(reward_type, answer, choices)
    for found in _TAG.finditer(question):
        if normalise(found[1] or found[2]) in golds:
            return f"holds {found[0][:60]!r}, which is the gold"
    for line in question.splitlines():
        for said in _SAID.finditer(line):
            if _says(said[1], golds):
                return f"holds {said[0][:60]!r}, which is the gold"
    if reward_type == "iou" and _same_box(question, answer):
        return "holds the gold box"
    if reward_type == "open_ended":
        text = f" {normalise(question)} "
        if any(len(gold.split()) >= MIN_CAPTION_WORDS and f" {gold} " in text for gold in golds):
            return "holds the gold text"
    return None


def _forms(reward_type: str, answer: str, choices: Sequence[str] | None) -> set[str]:
    """The golds in normalised form; of an option both its letter and its text."""
    try:
        texts = several_golds(answer, list_is_several=reward_type == "open_ended")
    except GoldError:
        texts = (answer,)
    forms = {normalise(text) for text in texts}
    for text in texts if choices else ():
        letter = _LETTER.match(text.strip())
        index = ord(letter[1].upper()) - ord("A") if letter else -1
        if 0 <= index < len(choices):
            forms |= {letter[1].casefold(), normalise(choices[index])}
    return forms - {""}


def _says(rest: str, golds: set[str]) -> bool:
    """Whether what follows `answer is` begins with a gold: all of it, its first sentence, or its option's
    letter.
    """
    letter = _LETTER.match(rest.strip())
    heads = {normalise(rest), normalise(re.split(r"[.;,]\s|[.;]$", rest, maxsplit=1)[0])}
    return bool(heads & golds) or bool(letter and letter[1].casefold() in golds)


def _same_box(question: str, answer: str) -> bool:
    numbers = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", question)]
    try:
        box = json.loads(answer)
    except ValueError:
        return False
    while isinstance(box, list) and box and isinstance(box[0], list):
        box = box[0]
    if not isinstance(box, list) or len(box) != 4:
        return False
    return any(numbers[place : place + 4] == box for place in range(len(numbers) - 3))
