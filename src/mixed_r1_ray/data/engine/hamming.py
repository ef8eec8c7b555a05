"""Pairs of 64-bit hashes that differ in few bits, without comparing all with all.

Multi-index hashing: cut into four bands, two hashes within d bits agree to d // 4 bits in at least one band. So
each band is looked up with that many bits flipped, and only what is found there is compared in full.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations

import numpy as np

BANDS, BAND_BITS = 4, 16
MOST_DISTANCE = 11  # beyond it a band would have to be looked up with three bits flipped, 697 times
BLOCK_PAIRS = 1 << 21  # compared at a time


def near_pairs(
    left: np.ndarray, right: np.ndarray, distance: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of places (i, j) with left[i] and right[j], uint64, within `distance` bits; each pair once.

    Raises ValueError for a distance beyond 11.
    """
    if not 0 <= distance <= MOST_DISTANCE:
        raise ValueError(f"distance {distance}: must be 0 to {MOST_DISTANCE}")
    allowed = distance // BANDS
    for band in range(BANDS):
        shift = np.uint64(band * BAND_BITS)
        mine, theirs = _band(left, shift), _band(right, shift)
        order = np.argsort(theirs, kind="stable")
        starts = np.searchsorted(theirs[order], np.arange((1 << BAND_BITS) + 1))
        for mask in _masks(allowed):
            wanted = mine ^ mask
            for i, place in expanded(starts[wanted], starts[wanted + 1]):
                j = order[place]
                bits = left[i] ^ right[j]
                near = np.bitwise_count(bits) <= distance
                for earlier in range(band):  # found there already
                    near &= np.bitwise_count(_band(bits, np.uint64(earlier * BAND_BITS))) > allowed
                if near.any():
                    yield i[near], j[near]


def _band(hashes: np.ndarray, shift: np.uint64) -> np.ndarray:
    return ((hashes >> shift) & np.uint64((1 << BAND_BITS) - 1)).astype(np.int64)


@lru_cache
def _masks(most_bits: int) -> tuple[int, ...]:
    """All 16-bit numbers with at most so many bits set."""
    return tuple(
        sum(1 << bit for bit in bits)
        for number in range(most_bits + 1)
        for bits in combinations(range(BAND_BITS), number)
    )


def expanded(first: np.ndarray, last: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(i, first[i]), …, (i, last[i] - 1) for every i, a block at a time."""
    counts = last - first
    places = np.flatnonzero(counts)
    ends = np.cumsum(counts[places])
    start = 0
    while start < len(places):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + BLOCK_PAIRS, side="right")))
        some = places[start:stop]
        i = np.repeat(some, counts[some])
        within = np.arange(len(i)) - np.repeat(np.cumsum(counts[some]) - counts[some], counts[some])
        yield i, first[i] + within
        start = stop
