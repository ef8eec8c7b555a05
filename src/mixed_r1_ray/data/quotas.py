"""How many records of each reward type and source a mixture takes: from quotas, and from what is there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from mixed_r1_ray.errors import ConfigError

Quota = int | float | None  # a number, a share of the whole, or an equal part of what the others leave
Stratum = tuple[str, str]  # reward type, source


def quota_faults(quotas: Mapping[str, Quota]) -> Iterator[str]:
    """What is wrong with single quotas, by the key that holds each."""
    for key, quota in quotas.items():
        if isinstance(quota, float) and not 0 <= quota <= 1:
            yield f"{key}.quota must be a whole number of records or a share from 0.0 to 1.0, not {quota}"
        elif isinstance(quota, int) and quota < 0:
            yield f"{key}.quota must not be negative, not {quota}"


def apportion(total: int, quotas: Mapping[str, Quota], where: str) -> dict[str, int]:
    """Parts of `total` that add up to it. Shares are rounded by largest remainder.

    where: the key that holds the quotas, for the ConfigError of those that do not add up.
    """
    exact = {name: float(_records(quota, total)) for name, quota in quotas.items() if quota is not None}
    left = total - sum(exact.values())
    open_ended = [name for name in quotas if name not in exact]
    if left < -0.5 or (left > 0.5 and not open_ended):
        parts = " + ".join(f"{name} {value:,.0f}" for name, value in exact.items())
        raise ConfigError(
            f"{where}: {parts} = {total - left:,.0f}, but {total:,} are asked for; change the quotas, or "
            "leave one null: it takes what the others leave"
        )
    exact |= {name: max(left, 0.0) / len(open_ended) for name in open_ended}
    rounded = round_to(total, exact)
    return {name: rounded[name] for name in quotas}


def wanted_records(
    size: int, types: Mapping[str, Quota], sources: Mapping[Stratum, Quota]
) -> dict[Stratum, int]:
    """What a recipe asks for: `size` divided among types, and each part among the type's sources."""
    of_type = apportion(size, types, "types")
    wanted: dict[Stratum, int] = {}
    for kind, total in of_type.items():
        quotas = {source: quota for (other, source), quota in sources.items() if other == kind}
        parts = apportion(total, quotas, f"types.{kind}.sources")
        wanted |= {(kind, source): number for source, number in parts.items()}
    return wanted


def fill(wanted: Mapping[Stratum, int], available: Mapping[Stratum, int]) -> dict[Stratum, int]:
    """What is taken: as wanted where there is enough, less where all is taken.

    What a source lacks its type's other sources give, in proportion to what they were asked for; what a type
    lacks, the other types.
    """
    taken = {stratum: min(number, available.get(stratum, 0)) for stratum, number in wanted.items()}
    types = dict.fromkeys(kind for kind, _ in wanted)
    for scope in [*([stratum for stratum in wanted if stratum[0] == kind] for kind in types), list(wanted)]:
        missing = sum(wanted[stratum] for stratum in scope) - sum(taken[stratum] for stratum in scope)
        while missing > 0:
            room = {s: available.get(s, 0) - taken[s] for s in scope if wanted[s]}
            weights = {stratum: float(wanted[stratum]) for stratum, free in room.items() if free > 0}
            if not weights:
                break
            for stratum, number in proportional(missing, weights).items():
                extra = min(number, room[stratum])
                taken[stratum] += extra
                missing -= extra
    return taken


def proportional(total: int, weights: Mapping[Stratum, float]) -> dict[Stratum, int]:
    """`total` divided in proportion to `weights` (not all 0), in whole numbers that add up to it."""
    whole = sum(weights.values())
    return round_to(total, {name: total * weight / whole for name, weight in weights.items()})


def round_to(total: int, exact: Mapping) -> dict:
    """Whole numbers that add up to `total`, each within 1 of its exact value (largest remainder first)."""
    floors = {name: math.floor(value + 1e-9) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: floors[name] - exact[name])
    for name in by_remainder[: total - sum(floors.values())]:
        floors[name] += 1
    return floors


def _records(quota: int | float, total: int) -> int | float:
    return quota * total if isinstance(quota, float) else quota
