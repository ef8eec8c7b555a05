"""The held-out split shares no picture with training, and no stratum gives more than it was asked for."""

from __future__ import annotations

import numpy as np

from mixed_r1_ray.data.held_out import hold_out

STRATA = (("iou", "boxes"), ("open_ended", "captions"))


def held(
    pictures: list[list[str]], stratum: list[int], numbers: tuple[int, int], seed: int = 0
) -> np.ndarray:
    names = sorted({name for of_record in pictures for name in of_record})
    owner = [record for record, of_record in enumerate(pictures) for _ in of_record]
    hashes = [names.index(name) for of_record in pictures for name in of_record]
    key = np.random.default_rng(seed).integers(0, 2**63, (len(pictures), 2)).astype(np.uint64)
    return hold_out(
        key,
        np.array(stratum),
        np.array(owner, int),
        np.array(hashes, int),
        STRATA,
        dict(zip(STRATA, numbers)),
    )


def test_records_chained_by_pictures_stay_together():
    pictures = [["a"], ["a", "b"], ["b"], ["c"], ["d"]]
    for seed in range(20):
        mask = held(pictures, [0] * 5, (3, 0), seed)
        assert mask[0] == mask[1] == mask[2]
        assert mask.sum() in (2, 3)  # the chain, or the two others


def test_numbers_are_met_exactly_where_pictures_are_not_shared():
    mask = held([[str(n)] for n in range(60)], [n % 2 for n in range(60)], (7, 4))
    assert mask[0::2].sum() == 7 and mask[1::2].sum() == 4


def test_records_without_pictures_can_be_held_out():
    assert held([[], [], []], [0, 0, 0], (2, 0)).sum() == 2


def test_a_group_that_would_overfill_a_stratum_stays_in_training():
    # The only captions share their picture with three boxes, and one box is asked for.
    pictures = [["a"], ["a"], ["a"], ["a"], ["b"]]
    mask = held(pictures, [1, 0, 0, 0, 0], (1, 1))
    assert mask.tolist() == [False, False, False, False, True]


def test_no_picture_is_on_both_sides_of_random_mixtures():
    random = np.random.default_rng(3)
    for seed in range(10):
        pictures = [[str(n) for n in random.integers(0, 300, random.integers(0, 3))] for _ in range(200)]
        stratum = random.integers(0, 2, 200)
        mask = held(pictures, stratum.tolist(), (12, 9), seed)
        sides = [
            {name for record in np.flatnonzero(mask == side) for name in pictures[record]} for side in (0, 1)
        ]
        assert not sides[0] & sides[1]
        assert mask[stratum == 0].sum() <= 12 and mask[stratum == 1].sum() <= 9
