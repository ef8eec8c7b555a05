"""The math reward: equality as math-verify sees it. Runs inside a KillableProcess (see math_process).

math-verify's own time-outs are signals, which only a main thread may use; they are off, for the process has a
deadline.
"""

from __future__ import annotations

import logging
import re
import resource
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from mixed_r1_ray.rewards.numbers import read_number
from mixed_r1_ray.rewards.parse import LATIN, after_lead_in, unwrap
from mixed_r1_ray.rewards.process import Reply

_MEMORY = 4 << 30  # bytes that comparing may take; a hostile power takes more (choice)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_DELIMITED = re.compile(r"\$\$?(.+?)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_MIXED_NUMBER = re.compile(r"(?<![0-9.,/])([0-9]{1,9})\s+([0-9]{1,9})\s*/\s*([0-9]{1,9})(?![0-9.,/])")
_SCIENTIFIC = re.compile(r"(?<![\w.])([0-9]+(?:\.[0-9]*)?)[eE]([-+]?[0-9]{1,4})(?![\w.])")
_SIGNS = {"−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "÷": r"\div ", "°": r"^\circ ", "²": "^2",
          "³": "^3", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∞": r"\infty ", "π": r"\pi "}  # fmt: skip
_ROOT = re.compile(r"√\s*\(?([0-9.]{1,20}|[A-Za-z])\)?")
_NEGATED = re.compile(r"\b(?:not|nor|neither)\b|n['’]t\b", re.IGNORECASE)
_COMMAND = re.compile(r"\\[A-Za-z]+\s*(?:\{[A-Za-z .,;:()-]*\})?")
_WORD = re.compile(rf"(?<![{LATIN}\\])[A-Za-z]{{3,}}(?![{LATIN}])")
_MATHS_WORDS = frozenset(
    "sqrt sin cos tan cot sec csc log exp and min max mod gcd lcm abs det arcsin arccos arctan".split()
)


def load():
    """What answers the items of the process: ["gold", text] or ["answer", gold, text]."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its time-outs are off
    import math_verify  # noqa: F401  the first item is not to pay for it

    _limit_memory()

    def answer(items: Sequence[list[str]], reply: Reply, one_by_one: bool) -> None:
        for place, (what, *texts) in enumerate(items):
            try:
                reply(place, *(check_gold if what == "gold" else compare)(*texts))
            except (RecursionError, MemoryError) as error:
                reply(place, 0.0, f"too large to compare ({type(error).__name__})")
            except Exception as error:  # nobody's fault that we know: unscored
                reply(place, None, f"could not compare ({error!r})", "raised")

    return answer


def check_gold(gold: str) -> tuple[float, str]:
    """1 if the gold can be read, and found equal to itself. No innocent answer may hang over it, either."""
    read = parse(gold)
    if not read:
        return 0.0, "is no mathematical expression"
    _equal(read, parse("12347"))
    return (1.0, "") if _equal(read, read) else (0.0, "cannot be compared, not even with itself")


def compare(gold: str, answer: str) -> tuple[float, str]:
    """1 if the answer equals the gold, else 0; and what was read."""
    read = parse(answer)
    if not read:
        return 0.0, f"no mathematical expression in {answer[:80]!r}"
    right = _equal(parse(gold), read)
    return float(right), f"read {read[-1][:80]!r}: {'right' if right else 'wrong'}"


@lru_cache(maxsize=256)  # a group shares its gold
def parse(text: str) -> tuple:
    """What math-verify makes of the text: an expression, and its LaTeX. Empty where it cannot read it."""
    from math_verify import LatexExtractionConfig
    from math_verify import parse as read

    latex = as_latex(text)
    if latex is None:
        return ()
    # No ExprExtractionConfig: it hands text to sympy's parse_expr, which evaluates it as code.
    config = [LatexExtractionConfig(boxed_match_priority=0)]
    found = read(latex, extraction_config=config, parsing_timeout=None)
    return tuple(found) if len(found) == 2 else ()  # one alone is a text that it could not read


def as_latex(text: str) -> str | None:
    """The mathematics of an answer between dollars; None where there is none, or it is in words.

    A box counts before the text around it, and the last box of several. Bare text is taken to be LaTeX,
    unless it holds words: then the one number in it is meant, `42 dollars` (choice).
    """
    boxes = [text[found.end() :] for found in _BOX.finditer(text)]
    if boxes:
        text = _to_closing_brace(boxes[-1])
        return f"${_tidy(text)}$" if text.strip() else None
    if _NEGATED.search(text):
        return None
    parts = [next(group for group in found.groups() if group) for found in _DELIMITED.finditer(text)]
    if parts:
        return " and ".join(f"${_tidy(part)}$" for part in parts)
    text = text.strip().strip("*`").rstrip(".,;:? ")
    bare = after_lead_in(text)
    words = {word.lower() for word in _WORD.findall(_COMMAND.sub(" ", bare))} - _MATHS_WORDS
    if words:
        number = read_number(unwrap(text))
        return None if number is None else f"${number.value!r}{'%' if number.percent else ''}$"
    tidy = _tidy(bare)
    return f"${tidy}$" if tidy and not re.search(r"[0-9]\s+[0-9]", tidy) else None


def _limit_memory() -> None:
    """Counted from what is in use, for libraries reserve address space by the number of cores."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _MEMORY, hard))
    except (OSError, ValueError):  # no Linux, or limited more strictly already
        pass


def _tidy(latex: str) -> str:
    latex = _ROOT.sub(r"\\sqrt{\1}", latex).translate(str.maketrans(_SIGNS))
    latex = _MIXED_NUMBER.sub(r"(\1 + \2/\3)", latex)
    return _SCIENTIFIC.sub(r"\1 \\times 10^{\2}", latex).replace("$", "").strip().rstrip(".,;")


def _to_closing_brace(text: str) -> str:
    depth = 1
    for place, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return text[:place]
    return text


def _equal(gold: tuple, answer: tuple) -> bool:
    from math_verify import verify

    return verify(list(gold[:1]), list(answer[:1]), timeout_seconds=None)
