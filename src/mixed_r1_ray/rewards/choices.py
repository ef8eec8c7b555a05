"""Which option of a multiple-choice question an answer names: by letter, by text, or by both in agreement."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from mixed_r1_ray.rewards.parse import LATIN, normalise, unwrap, without_lead_in

_BARE_LETTER = re.compile(
    r"(?:(?:option|choice|answer)[\s:]+)?[(\[<]?\s*([A-Za-z])\s*[)\]>.:]*", re.IGNORECASE
)
_LABEL = re.compile(
    r"(?:(?:option|choice|answer)\s+)?"
    r"(?:[(\[]\s*([A-Za-z])\s*[)\]]|([A-Za-z])\s*[).:]|([A-Za-z])\s+[-–—])\s*[-:.,]?\s*",
    re.IGNORECASE,
)
_NAMED_LETTER = re.compile(
    rf"""[(\[]\s*(?P<bracketed>[A-Za-z])\s*[)\]]
      | (?<![{LATIN}])(?i:option|choice|answer)(?i:\s+is)?[\s:]+["']?(?P<named>[A-Za-z])(?![{LATIN}'’])
      | (?<![{LATIN}'’.])(?P<capital>[A-Z])(?![{LATIN}'’+\#])""",
    re.VERBOSE,
)
_EXPLANATION = re.compile(r"(?<!\w)(?:because|since|as|due\ to|given|for)(?!\w)", re.IGNORECASE)
_NEGATED = re.compile(
    r"(?<!\w)(?:not|isn'?t|neither|nor|except|without|never)\s+(?:the\s+)?(?:option\s+|choice\s+)?\W?$",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"(?<!\w)(?:not|no|never|neither|nor|or|cannot|if|whether|except|without|unsure|unclear|unknown)(?!\w)"
    r"|n['’]t(?!\w)",
    re.IGNORECASE,
)
_STATEMENT = re.compile(r"[^\w]*(?:is|was|are|seems|looks|would|must|should|can|fits|matches)(?!\w)", re.IGNORECASE)
_REFUSED = re.compile(
    r"[\])>\"'”’]?[\s,:]*(?:(?:is|was|are|seems|looks|would\s+be|can|does|do)(?:n['’]t|\s+not|\s+never)|cannot"
    r"|(?:is|was|seems|looks)\s+(?:\w+\s+)?(?:incorrect|wrong|false|untrue|ruled\s+out))(?!\w)",
    re.IGNORECASE,
)
_MAX_SENTENCE = 30  # words in which an option's text may stand (choice)
_MASK = "\x00"  # stands where an option's text was
_ARTICLE_BEFORE = re.compile(
    rf" (?!(?:or|and|nor|is|are|was|but|because|since|as|due|given|for)\b)[a-z{_MASK}]"
)


class Named(NamedTuple):
    """The option that an answer names (None: no option, or more than one), and how it was read."""

    index: int | None
    why: str


class Options:
    """The options of a question. `texts` None: only their letters are known."""

    def __init__(self, texts: Sequence[str] | None):
        self.texts = None if texts is None else tuple(_without_labels(texts))
        self.forms = [] if self.texts is None else [normalise(text) for text in self.texts]
        self.count = 26 if self.texts is None else min(26, len(self.texts))
        self._by_form = {form: index for index, form in reversed(list(enumerate(self.forms)))}
        self._mention = self._mention_pattern()

    def by_text(self, text: str) -> list[int]:
        """Options whose text is this one: equal as written if any is, else equal after normalisation."""
        plain = unwrap(text).casefold()
        same = [index for index, option in enumerate(self.texts or ()) if unwrap(option).casefold() == plain]
        form = normalise(text)
        return same or [index for index, option in enumerate(self.forms) if option and option == form]

    def by_letter(self, text: str) -> int | None:
        """The option whose letter is all that the text says, be it one past the last option."""
        letter = _BARE_LETTER.fullmatch(text)
        return _index(letter[1]) if letter else None

    def read_gold(self, gold: str) -> list[int]:
        """Options that a gold answer may mean: its letter, its text, or both (`B. a cat`)."""
        text = unwrap(gold)
        found = set(self.by_text(text))
        letter = self.by_letter(text)
        label = _LABEL.match(text)
        if letter is None and label and not found:
            letter = _index(_group(label))
            if self.texts is not None and letter not in self.by_text(text[label.end() :]):
                letter = None
        if letter is not None and letter < self.count:
            found.add(letter)
        return sorted(found)

    def read(self, answer: str) -> Named:
        """The one option that an unwrapped answer names."""
        for text in dict.fromkeys((answer, without_lead_in(answer))):
            letter = self.by_letter(text)
            if letter is not None:
                return self._checked(letter, "letter")
            same = self.by_text(text)
            if same:
                return Named(same[0], "text") if len(same) == 1 else Named(None, "text of several options")
        label = _LABEL.match(text)
        if label and self.texts is not None:
            labelled = self._read_labelled(_index(_group(label)), text[label.end() :])
            if labelled is not None:
                return labelled
        return self._read_sentence(answer)

    def _read_labelled(self, letter: int, rest: str) -> Named | None:
        """`B: a cat`: the text has to be that option's. None where a sentence follows instead."""
        same = self.by_text(rest)
        if same:
            return (
                self._checked(letter, "letter and text")
                if letter in same
                else Named(None, "letter against text")
            )
        words = normalise(rest).split()
        foreign = letter < self.count and not set(words) & set(self.forms[letter].split())
        if (
            foreign
            and 0 < len(words) <= 4
            and not _STATEMENT.match(rest)
            and not _EXPLANATION.search(rest)
            and not _NAMED_LETTER.search(rest)
        ):
            return Named(None, "letter against text")
        return None

    def _read_sentence(self, sentence: str) -> Named:
        masked, mentioned = self._mask_texts(sentence)
        letters = _letters(masked)
        if len(letters) > 1:
            return Named(None, "several letters")
        if letters:
            (letter,) = letters
            if _is_refused(masked, letter):
                return Named(None, f"{chr(65 + letter)} is said to be wrong")
            _, mentioned = self._mask_texts(_EXPLANATION.split(sentence, maxsplit=1)[0])
            if mentioned - {letter}:
                return Named(None, "letter against text")
            return self._checked(letter, "letter in a sentence")
        if len(mentioned) != 1:
            return Named(None, "several options" if mentioned else "no option")
        (index,) = mentioned
        unsure = self.forms[index] not in ("yes", "no") and _HEDGE.search(masked)
        if unsure or masked.count(" ") > _MAX_SENTENCE:
            return Named(None, "no option is plainly named")
        return Named(index, "text in a sentence")

    def _checked(self, letter: int, why: str) -> Named:
        return (
            Named(letter, why) if letter < self.count else Named(None, f"{chr(65 + letter)} is not an option")
        )

    def _mention_pattern(self) -> re.Pattern | None:
        forms = sorted(
            {form for form in self.forms if len(form) > 1 or form.isdigit()}, key=len, reverse=True
        )
        if not forms:
            return None
        gap = r"[\W_]+(?:(?:an?|the)[\W_]+)?"
        bodies = (gap.join(re.escape(word) for word in form.split()) for form in forms)
        return re.compile(
            rf"(?<![{LATIN}])(?<![0-9][.,/])(?<![-−])(?:{'|'.join(bodies)})(?![{LATIN}]|[.,/][0-9])",
            re.IGNORECASE,
        )

    def _mask_texts(self, sentence: str) -> tuple[str, set[int]]:
        """The sentence with every option's text blotted out, longer ones first, and which they were."""
        if self._mention is None:
            return sentence, set()
        mentioned = {self._by_form.get(normalise(found[0])) for found in self._mention.finditer(sentence)}
        return self._mention.sub(_MASK, sentence), mentioned - {None}


def _letters(masked: str) -> set[int]:
    """Letters that a sentence names. `A` before a word is an article, `I` a pronoun."""
    letters = set()
    for found in _NAMED_LETTER.finditer(masked):
        letter = found[found.lastgroup]
        after = masked[found.end() : found.end() + 24]
        if found.lastgroup != "bracketed" and letter in "AaI" and _ARTICLE_BEFORE.match(after):
            continue
        if not _NEGATED.search(masked[max(0, found.start() - 32) : found.start()]):
            letters.add(_index(letter))
    label = _LABEL.match(masked)
    if label:
        letters.add(_index(_group(label)))
    return letters


def _is_refused(masked: str, letter: int) -> bool:
    """`B is not correct`: the sentence names the letter to reject it, wherever else it may name it."""
    return any(
        _index(found[found.lastgroup]) == letter and _REFUSED.match(masked, found.end())
        for found in _NAMED_LETTER.finditer(masked)
    )


def _index(letter: str) -> int:
    return ord(letter.upper()) - ord("A")


def _group(label: re.Match) -> str:
    return next(group for group in label.groups() if group)


def _without_labels(texts: Sequence[str]) -> list[str]:
    """`A. cat`, `B. dog` → `cat`, `dog`, where every option carries its own letter."""
    labels = [
        re.match(rf"\s*[(\[]?{chr(65 + index)}[)\].:]\s*(?=\S)", text) for index, text in enumerate(texts)
    ]
    return [text[label.end() :] if all(labels) else text for text, label in zip(texts, labels)]


_QUESTION_LABEL = re.compile(r"(?:^|(?<=\s))[(\[]?([A-Z])[)\].:]\s+")


@lru_cache(maxsize=4096)
def options_in_question(question: str) -> tuple[str, ...] | None:
    """The options that a question lists as `(A) … (B) …` or `A. …`; None where it lists none."""
    labels = []
    for label in _QUESTION_LABEL.finditer(question):
        if _index(label[1]) == len(labels):
            labels.append(label)
    if len(labels) < 2:
        return None
    ends = [label.start() for label in labels[1:]] + [len(question)]
    texts = [question[label.end() : end].strip().rstrip(";,") for label, end in zip(labels, ends)]
    texts[-1] = texts[-1].split("\n", 1)[0]
    return tuple(texts) if all(texts) else None
