"""The matching reward: multiple choice, yes/no and other short text, right or wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mixed_r1_ray.rewards.choices import Options, options_in_question
from mixed_r1_ray.rewards.golds import several_golds
from mixed_r1_ray.rewards.parse import (
    LATIN,
    MAX_SHORT_ANSWER,
    GoldError,
    TaskScore,
    normalise,
    unwrap,
    without_lead_in,
)

_MAX_GOLD = 300  # characters: longer is prose, which is no short text (choice)


@dataclass(frozen=True, slots=True)
class OptionGold:
    """One option of a multiple-choice question."""

    index: int
    options: Options

    def matches(self, answer: str) -> tuple[bool, str]:
        named = self.options.read(answer)
        read = (
            "none"
            if named.index is None
            else chr(65 + named.index)
            if named.index < 26
            else str(named.index + 1)
        )
        return named.index == self.index, f"option {read} ({named.why})"


@dataclass(frozen=True, slots=True)
class YesNoGold:
    """yes or no; `words` also holds true and false where the gold is one of those."""

    positive: bool
    words: dict[str, bool]

    def matches(self, answer: str) -> tuple[bool, str]:
        said = {self.words[word] for word in _yes_no_words(answer) if word in self.words}
        read = "neither or both" if len(said) != 1 else "yes" if True in said else "no"
        return said == {self.positive}, read


@dataclass(frozen=True, slots=True)
class TextGold:
    """Any other short text, normalised."""

    form: str

    def matches(self, answer: str) -> tuple[bool, str]:
        forms = [normalise(text) for text in dict.fromkeys((answer, without_lead_in(answer)))]
        return self.form in forms, f"text {forms[0][:80]!r}"


MatchingGold = OptionGold | YesNoGold | TextGold
_YES_NO = {"yes": True, "no": False}
_TRUE_FALSE = _YES_NO | {"true": True, "false": False}
_WORD = re.compile(
    rf"(?<![{LATIN}])(?<![{LATIN}][-'’])(yes|no|true|false)(?![{LATIN}]|[-'’][{LATIN}]|\s+(?:idea|clue|way|answer)\b)"
)


def parse_gold(
    gold: str, choices: Sequence[str] | None = None, question: str | None = None
) -> tuple[MatchingGold, ...]:
    """The golds that count as right: one, or those of several_golds. Raises GoldError."""
    return tuple(_parse_one(text, choices, question) for text in several_golds(gold, list_is_several=True))


def score_answer(answer: str, golds: tuple[MatchingGold, ...]) -> TaskScore:
    """1 if the answer matches a gold, else 0."""
    if len(answer) > MAX_SHORT_ANSWER:
        return TaskScore(0.0, f"the answer has {len(answer)} characters, no short answer")
    unwrapped = unwrap(answer)
    for gold in golds:
        right, read = gold.matches(unwrapped)
        if right:
            return TaskScore(1.0, f"read {read}: right")
    return TaskScore(0.0, f"read {read}: wrong")


def _parse_one(gold: str, choices: Sequence[str] | None, question: str | None) -> MatchingGold:
    if choices:
        return _parse_option(gold, Options(choices))
    listed = options_in_question(question) if question else None
    if listed and len(Options(listed).read_gold(gold)) == 1:
        return _parse_option(gold, Options(listed))
    letter = Options(None).by_letter(unwrap(gold))
    if letter is not None:
        return OptionGold(letter, Options(None))
    form = normalise(unwrap(gold))
    if form in _TRUE_FALSE:
        return YesNoGold(_TRUE_FALSE[form], _YES_NO if form in _YES_NO else _TRUE_FALSE)
    if not any(char.isalnum() for char in form):
        raise GoldError(f"gold {gold[:80]!r} is no option, yes or no, nor any word")
    if len(gold) > _MAX_GOLD:
        raise GoldError(
            f"gold of {len(gold)} characters is no short text (at most {_MAX_GOLD}); is it open_ended?"
        )
    return TextGold(form)


def _parse_option(gold: str, options: Options) -> OptionGold:
    found = options.read_gold(gold)
    if len(found) == 1:
        return OptionGold(found[0], options)
    if found:
        letters = ", ".join(chr(65 + index) for index in found)
        raise GoldError(f"gold {gold[:80]!r} stands for more than one of the choices ({letters})")
    raise GoldError(f"gold {gold[:80]!r} is none of the choices {list(options.texts or ())!r}")


def _yes_no_words(answer: str) -> list[str]:
    return _WORD.findall(answer.casefold())
