"""How a picture looks, in 776 bytes: a perceptual hash to find what may be alike, a small copy to tell whether it is.

A hash alone will not do: among flat pictures (charts, drawings on white) hashes of quite different ones collide.
docs/selection.md has the measurements behind the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

HASH_SIDE = 8  # 64 bits
COPY_SIDE = 16
COPY_BYTES = COPY_SIDE * COPY_SIDE * 3
COLOUR_SLACK = 2  # choice: JPEG keeps colour at half the size, so it may differ by more than brightness


@dataclass(frozen=True, slots=True)
class Look:
    """`phash`: 64 bits as an integer. `copy`: the picture at 16 x 16, YCbCr, row by row."""

    phash: int
    copy: bytes


def look_at(pixels: np.ndarray) -> Look:
    """The look of a decoded picture, uint8 (H, W, 3)."""
    import imagehash
    from PIL import Image

    picture = Image.fromarray(pixels)
    bits = imagehash.phash(picture, hash_size=HASH_SIDE).hash
    copy = picture.resize((COPY_SIDE, COPY_SIDE), Image.Resampling.BILINEAR)
    return Look(int.from_bytes(np.packbits(bits).tobytes(), "big"), copy.convert("YCbCr").tobytes())


def same_picture(left: np.ndarray, right: np.ndarray, most: float) -> np.ndarray:
    """Whether pairs of small copies, uint8 (n, 768) each, show the same picture; bool (n,).

    most: largest difference of brightness, of 255, at any of the 256 places; colour may differ by twice that. What
    encoding and resizing add stays below it, what makes it another picture sits in one place and does not.
    """
    difference = np.abs(left.astype(np.int16) - right).reshape(-1, COPY_BYTES // 3, 3).max(axis=1)
    return (difference[:, 0] <= most) & (difference[:, 1:].max(axis=1) <= COLOUR_SLACK * most)
