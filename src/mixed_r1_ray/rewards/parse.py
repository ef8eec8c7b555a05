"""Reads a response: which part of it is the answer, and what that says once its wrapping is off.

Every function takes time linear in the length of its text, whatever the text is.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

LATIN = r"0-9A-Za-z_\u00c0-\u024f"  # what a word goes on with; scripts without spaces may adjoin it
MAX_SHORT_ANSWER = 2048  # characters; a longer answer names no option, word or number (choice)


class GoldError(ValueError):
    """The gold answer of a record cannot be read: the sample is unscored, which is not the same as wrong."""


class TaskScore(NamedTuple):
    """A task reward in [0, 1], and what was parsed and why it scored so."""

    value: float
    detail: str


_TAG = re.compile(r"<(/?)(think|answer)>", re.ASCII | re.IGNORECASE)


def extract_answer(response: str) -> str | None:
    """The text of the last complete `<answer>…</answer>` outside `<think>`; None where there is none.

    A `<think>` that is never closed runs to the end of the response, unless the response ends in an answer:
    then that answer counts, for only the closing tag was forgotten (choice).
    """
    depth = 0  # nesting of <think>
    opened = last = None  # start of an open answer, (start, end) of the last complete one
    outside = (None, None)  # opened and last as they were where the current <think> began
    thoughts: list[tuple[int, int]] = []
    for tag in _TAG.finditer(response):
        closing, name = tag[1], tag[2].lower()
        if name == "think" and not closing:
            if depth == 0:
                outside, opened, thought_start = (opened, last), None, tag.start()
            depth += 1
        elif name == "think" and depth > 0:
            depth -= 1
            if depth == 0:
                opened, last = outside
                thoughts.append((thought_start, tag.end()))
        elif name == "answer" and not closing:
            opened = tag.end()
        elif name == "answer" and opened is not None:
            last, opened = (opened, tag.start()), None
    if depth > 0 and (last is None or response[last[1] + len("</answer>") :].strip()):
        last = outside[1]
    return None if last is None else _without_spans(response, *last, thoughts).strip()


def _without_spans(text: str, start: int, end: int, spans: list[tuple[int, int]]) -> str:
    pieces = []
    for left, right in spans:
        if start <= left and right <= end:
            pieces.append(text[start:left])
            start = right
    return "".join(pieces) + text[start:end]


_LATEX = re.compile(
    r"\\(?:boxed|fbox|mbox|text(?:bf|it|rm|sf|tt)?|math(?:bf|it|rm|sf)|bm|left|right|displaystyle)"
    r"(?![A-Za-z])\s*"
    r"|\\[()\[\],;:!]|(?<=\\)[ ]|\\(?=[%$#&_ ])|[{}]"
)
_MARKDOWN = re.compile(r"```[a-z]*|[`]+|\*\*+|__+", re.ASCII)
_ENDS = "\"'“”‘’«»*_#"
_TRAILING = ".,;:!?。、"


def unwrap(text: str) -> str:
    """The text in NFKC, white space collapsed, without LaTeX, markdown, outer quotes, last punctuation."""
    text = unicodedata.normalize("NFKC", text)
    if "\\" in text or "{" in text:
        text = _LATEX.sub("", text)
    if "`" in text or "*" in text or "_" in text:
        text = _MARKDOWN.sub("", text)
    text = " ".join(text.split())
    while True:
        bare = text.strip(_ENDS + " ").rstrip(_TRAILING + " ")
        if len(bare) > 1 and bare[0] == bare[-1] == "$":
            bare = bare[1:-1]
        if bare == text:
            return bare
        text = bare


_LEAD_IN = re.compile(
    r"""(?:(?:so|thus|therefore|hence)[,\s]+)?
        (?:(?:(?:the|my)\s+)?(?:(?:final|correct|best|right)\s+){0,2}(?:answer|option|choice)
               (?:\s+(?:is|are|would\ be|should\ be|must\ be)(?![a-z])|\s*[:=])
         | (?:it|this|that|there)(?:\s+is|\s+are|'s|’s)(?![a-z]) )
        \s*[:=]?\s*""",
    re.IGNORECASE | re.VERBOSE | re.ASCII,
)


def without_lead_in(unwrapped: str) -> str:
    """`The answer is: red` → `red`. The text itself where nothing leads in."""
    rest = after_lead_in(unwrapped)
    return unwrapped if rest == unwrapped else unwrap(rest)


def after_lead_in(text: str) -> str:
    """The same of a text whose wrapping carries meaning: nothing else is taken off."""
    lead_in = _LEAD_IN.match(text)
    return text[lead_in.end() :] if lead_in else text


_APOSTROPHE = re.compile(r"['’ʼ`]")
_INITIALS = re.compile(r"(?<![^\W\d_])([^\W\d_])\.(?=[^\W\d_](?:\.|\b))")  # U.S.A → USA
_NUMBER_MARK = re.compile(
    r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))|(?<![\w.])[-−–](?=[.]?[0-9])|(?<=[0-9])[./](?=[0-9])"
)
_KEEP = {",": "", "-": "\ue001", "−": "\ue001", "–": "\ue001", ".": "\ue002", "/": "\ue003"}
_RESTORE = str.maketrans({"\ue001": "-", "\ue002": ".", "\ue003": "/"})
_ARTICLES = frozenset(("a", "an", "the"))


def normalise(text: str) -> str:
    """The form in which short texts are compared: NFKC, case folded, without punctuation and articles.

    A decimal point, a fraction bar and a minus sign are no punctuation; commas between thousands go. The last
    word is never an article: `vitamin A`.
    """
    words = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split()
    text = " ".join([word for word in words[:-1] if word not in _ARTICLES] + words[-1:])
    if not text.isascii() or not text.replace(" ", "").isalnum():
        text = _INITIALS.sub(r"\1", _APOSTROPHE.sub("", text))
        text = _NUMBER_MARK.sub(lambda mark: _KEEP[mark[0]], text)
        text = "".join(
            " " if unicodedata.category(char)[0] in "PZC" and char < "\ue000" else char for char in text
        )
        text = text.translate(_RESTORE)
    return " ".join(text.split())
