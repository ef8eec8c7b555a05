"""Multiple-choice questions as text: options under letters, and a gold that means exactly one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mixed_r1_ray.data.converters.base import Skip

MAX_OPTIONS = 26


class MultipleChoice(NamedTuple):
    question: str
    answer: str
    choices: tuple[str, ...] | None


def multiple_choice(question: str, options: Sequence[str], correct: int | None) -> MultipleChoice:
    """The question with its options listed, and the right one's letter as its answer. Raises Skip.

    options: texts; correct: index of the right one, from 0. Options that are all single letters are those of
    a diagram's labels; letters before them would contradict them, so they are listed bare and the answer is
    the label (choice).
    """
    texts = [str(option).strip() for option in options]
    if correct is None or not 0 <= correct < len(texts):
        raise Skip(
            "has no right option"
            if correct is None or correct < 0
            else "right option is not among its options"
        )
    if not 2 <= len(texts) <= MAX_OPTIONS:
        raise Skip(f"has {len(texts)} options")
    if not all(texts):
        raise Skip("has an empty option")
    folded = [text.casefold() for text in texts]
    if folded.count(folded[correct]) > 1:
        raise Skip("its right option stands twice")
    if all(len(text) == 1 and text.isascii() and text.isalpha() for text in texts):
        return MultipleChoice(f"{question}\nChoose one of: {', '.join(texts)}.", texts[correct], None)
    letters = [chr(ord("A") + index) for index in range(len(texts))]
    listed = "\n".join(f"({letter}) {text}" for letter, text in zip(letters, texts))
    answer = letters[correct]
    if answer.casefold() in folded:  # an option's text is this letter
        answer = f"{answer}. {texts[correct]}"
    return MultipleChoice(f"{question}\n{listed}", answer, tuple(texts))
