"""Numbers as charts and people write them: separators, currencies, scale words, percent signs, units."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass

_MAX_LENGTH = 200  # characters of a written number with its unit

_SCALES = {
    **dict.fromkeys(("hundred", "hundreds"), 1e2),
    **dict.fromkeys(("k", "K", "thousand", "thousands"), 1e3),
    **dict.fromkeys(("lakh", "lakhs"), 1e5),
    **dict.fromkeys(("M", "mn", "mln", "million", "millions"), 1e6),  # a small m is a metre
    **dict.fromkeys(("crore", "crores"), 1e7),
    **dict.fromkeys(("B", "bn", "bln", "billion", "billions"), 1e9),
    **dict.fromkeys(("T", "tn", "trn", "trillion", "trillions"), 1e12),
}
_SYNONYMS = {
    **dict.fromkeys(("$", "us$", "usd", "dollar", "dollars"), "dollar"),
    **dict.fromkeys(("€", "eur", "euro", "euros"), "euro"),
    **dict.fromkeys(("£", "gbp", "pound", "pounds", "lb", "lbs"), "pound"),
    **dict.fromkeys(("¥", "jpy", "yen"), "yen"),
    **dict.fromkeys(("₹", "inr", "rs", "rs.", "rupee", "rupees"), "rupee"),
    **dict.fromkeys(("mg", "milligram", "milligrams"), "mg"),
    **dict.fromkeys(("g", "gram", "grams"), "g"),
    **dict.fromkeys(("kg", "kilogram", "kilograms", "kilos"), "kg"),
    **dict.fromkeys(("t", "ton", "tons", "tonne", "tonnes"), "t"),
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetres"), "mm"),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetres"), "cm"),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), "m"),
    **dict.fromkeys(("km", "kilometer", "kilometers", "kilometres"), "km"),
    **dict.fromkeys(("mi", "mile", "miles"), "mile"),
    **dict.fromkeys(("s", "sec", "second", "seconds"), "s"),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), "min"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("day", "days"), "day"),
    **dict.fromkeys(("week", "weeks"), "week"),
    **dict.fromkeys(("month", "months"), "month"),
    **dict.fromkeys(("year", "years", "yr", "yrs"), "year"),
}
_PERCENT = r"%|per\s?cent(?:age)?(?![a-z])(?:\s+points?)?|pct(?![a-z])"
_CURRENCY = r"(?:US|HK|NZ|AU|CA|[AC])?\$|[€£¥₹₩₽]|(?:USD|EUR|GBP|JPY|INR|CNY|RMB|Rs\.?)(?![A-Za-z])"
_NUMBER = re.compile(
    rf"""(?P<about>(?i:about|approximately|approx\.?|around|roughly|nearly|almost)\s+|[~≈]\s*)?
         (?P<sign>[-+]|(?i:minus|negative)\s+)?(?P<currency>{_CURRENCY})?\s?(?P<inner_sign>[-+])?
         (?P<digits>[0-9]{{1,3}}(?:,[0-9]{{2,3}})*,[0-9]{{3}}(?:\.[0-9]*)?
                  | [0-9]{{1,3}}(?:[\ '][0-9]{{3}})+(?:\.[0-9]+)?
                  | [0-9]{{1,3}}(?:\.[0-9]{{3}})+,[0-9]{{1,2}}
                  | [0-9]+,[0-9]{{1,2}}
                  | [0-9]{{1,9}}\s?/\s?[0-9]{{1,9}}(?!\s?[/0-9])
                  | [0-9]+(?:\.[0-9]*)? | \.[0-9]+ )
         (?P<exponent>[eE][-+]?[0-9]{{1,4}}|\s?[x×*]\s?10\s?\^\s?[-+]?[0-9]{{1,3}})?
         (?:\s?(?P<percent>(?i:{_PERCENT})))?
         (?:[\s-]?(?P<unit>(?:/(?=\s?[A-Za-z])|[A-Za-z°µμ$€£¥])[^,;:=<>()\[\]0-9]{{0,60}}[23]?))?""",
    re.VERBOSE,
)
_NO_QUANTITY = re.compile(r"[12][0-9]{3}s|[0-9]+(?:st|nd|rd|th)\b.*", re.IGNORECASE)  # the 1990s; 2nd place
_HEDGE = re.compile(
    r"(?<![a-z])(?:or|not|nor|but|between|than|least|most|over|under|above|below|to|and)(?![a-z])|n't",
    re.IGNORECASE,
)
_MINUS = str.maketrans({"−": "-", "–": "-", "—": "-", "﹣": "-"})
_NON_FINITE = re.compile(r"[-+]?(?:nan|inf|infinity|∞)", re.IGNORECASE)
YEARS = range(1800, 2101)  # four bare digits in this range are a year (choice)


@dataclass(frozen=True, slots=True)
class Number:
    """A number as written. `value` has its scale word applied, but not its percent sign."""

    value: float
    percent: bool = False
    unit: frozenset[str] = frozenset()  # its words, currency included
    is_year: bool = False


def parse_number(text: str) -> Number | None:
    """The number that the whole text writes, or None. Never infinite, never NaN."""
    if len(text) > _MAX_LENGTH:
        return None
    text = unicodedata.normalize("NFKC", text).translate(_MINUS).strip()
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1].strip()
    found = None if _NO_QUANTITY.fullmatch(text) else _NUMBER.fullmatch(text)
    if found is None or (found["sign"] and found["inner_sign"]) or _HEDGE.search(found["unit"] or ""):
        return None
    scale, _, rest = (found["unit"] or "").partition(" ")
    factor = _SCALES.get(scale if len(scale) == 1 else scale.lower())
    unit = rest if factor else found["unit"] or ""
    value = _value(found) * (factor or 1.0)
    if not math.isfinite(value):
        return None
    marks = ("about", "sign", "inner_sign", "currency", "exponent", "percent", "unit")
    bare = len(found["digits"]) == 4 and found["digits"].isdigit() and not any(found[mark] for mark in marks)
    return Number(
        value, bool(found["percent"]), _unit_words(found["currency"], unit), bare and int(value) in YEARS
    )


def read_number(text: str) -> Number | None:
    """The number that the text writes, or the only one in a short sentence; None for none or several."""
    number = parse_number(text)
    if number is not None or len(text) > _MAX_LENGTH or _HEDGE.search(text):
        return number
    words = text.split()
    places = [place for place, word in enumerate(words) if any(char.isdigit() for char in word)]
    if len(places) != 1:
        return None
    (place,) = places
    for end in (len(words), place + 2, place + 1):  # all that follows may be its unit, or one word, or none
        number = parse_number(" ".join(words[place:end]).strip("()[]\"'.,;:!?"))
        if number is not None:
            return number
    return None


def is_non_finite(text: str) -> bool:
    """Whether the text is how a program writes not-a-number or infinity."""
    return _NON_FINITE.fullmatch(text.strip()) is not None


def within(prediction: Number, gold: Number, tolerance: float, percent_axis: bool = False) -> bool:
    """Whether the two agree: |prediction - gold| ≤ tolerance · |gold|, years and zero exactly; no other unit.

    Of a percentage and a bare number x, x is a fraction if |x| < 1, else it is read at face value; never both
    (choice). percent_axis: the question speaks of percent, so a bare gold is read at face value.
    """
    if prediction.unit and gold.unit and not prediction.unit & gold.unit:
        return False
    value, target = prediction.value, gold.value
    if prediction.percent and not gold.percent and abs(target) < 1 and not percent_axis:
        value = value / 100
    elif gold.percent and not prediction.percent and abs(value) < 1:
        value = value * 100
    allowed = 0.0 if gold.is_year else tolerance * abs(target)
    return abs(value - target) <= allowed + 1e-9 * abs(target)


def _value(found: re.Match) -> float:
    digits = found["digits"].replace(" ", "").replace("'", "")
    if "/" in digits:
        numerator, denominator = map(float, digits.split("/"))
        return math.copysign(numerator / denominator if denominator else math.inf, -1.0 if _is_negative(found) else 1.0)
    if re.fullmatch(r"[0-9.]+,[0-9]{1,2}", digits):
        digits = digits.replace(".", "").replace(",", ".")
    value = float(digits.replace(",", ""))
    if found["exponent"]:
        try:
            value *= 10.0 ** int(re.sub(r"\s?[x×*]\s?10\s?\^\s?|[eE]", "", found["exponent"]))
        except OverflowError:
            return math.inf
    return -value if _is_negative(found) else value


def _is_negative(found: re.Match) -> bool:
    signs = (found["sign"] or "") + (found["inner_sign"] or "")
    return signs.startswith("-") or signs.strip().lower() in ("minus", "negative")


def _unit_words(currency: str | None, unit: str) -> frozenset[str]:
    words = [word for word in re.split(r"[^\w$€£¥₹₩₽°/%]+", f"{currency or ''} {unit}".lower()) if word]
    return frozenset(
        _SYNONYMS.get(word, word) for word in words if word not in ("of", "the", "in", "per", "a")
    )
