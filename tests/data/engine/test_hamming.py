"""Near hashes are found without comparing all with all, and exactly those."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixed_r1_ray.data.engine import hamming
from mixed_r1_ray.data.engine.hamming import near_pairs


def by_brute_force(left: np.ndarray, right: np.ndarray, distance: int) -> list[tuple[int, int]]:
    return [
        (i, j)
        for i, one in enumerate(left.tolist())
        for j, other in enumerate(right.tolist())
        if (one ^ other).bit_count() <= distance
    ]


def found(left: np.ndarray, right: np.ndarray, distance: int) -> list[tuple[int, int]]:
    blocks = near_pairs(left, right, distance)
    return sorted((int(i), int(j)) for some, others in blocks for i, j in zip(some, others, strict=True))


hashes = st.lists(st.integers(0, 2**64 - 1), max_size=12)
flips = st.lists(st.tuples(st.integers(0, 11), st.sets(st.integers(0, 63), max_size=12)), max_size=12)


@given(hashes, flips, st.integers(0, 11))
def test_finds_what_brute_force_finds_each_pair_once(values, flipped, distance):
    others = [values[place] ^ sum(1 << bit for bit in bits) for place, bits in flipped if place < len(values)]
    left, right = np.array(values, np.uint64), np.array(others, np.uint64)
    assert found(left, right, distance) == by_brute_force(left, right, distance)


def test_a_crowded_bucket_is_compared_in_blocks(monkeypatch):
    monkeypatch.setattr(hamming, "BLOCK_PAIRS", 7)
    values = np.arange(40, dtype=np.uint64)  # all alike in three of four bands
    assert found(values, values, 2) == by_brute_force(values, values, 2)


def test_a_distance_that_the_bands_cannot_promise_is_refused():
    with pytest.raises(ValueError, match="distance 12"):
        next(near_pairs(np.zeros(1, np.uint64), np.zeros(1, np.uint64), 12))
