"""Types of configuration values that carry their bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Bounds:
    """Closed interval of a number, open below where `above` is given."""

    least: float | None = None
    above: float | None = None
    most: float | None = None

    def allow(self, value: float) -> bool:
        """Whether `value` lies inside; NaN never does."""
        return (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and value == value
        )

    def __str__(self) -> str:
        parts = ((">=", self.least), (">", self.above), ("<=", self.most))
        return " and ".join(f"{sign} {bound:g}" for sign, bound in parts if bound is not None)


Count = Annotated[int, Bounds(least=1)]
Whole = Annotated[int, Bounds(least=0)]
Positive = Annotated[float, Bounds(above=0)]
NonNegative = Annotated[float, Bounds(least=0)]
Fraction = Annotated[float, Bounds(least=0, most=1)]
Momentum = Annotated[float, Bounds(least=0, most=0.9999)]
