"""Decodes the pictures of records. A picture that cannot be used is a reason in words, never a crash."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 64 * 1024 * 1024  # 192 MiB decoded; larger is refused before it is unpacked
MAX_SIDE = 20_000  # pixels
ORIENTATION = 0x0112  # EXIF tag; 5 to 8 swap width and height


class ImageError(ValueError):
    """A picture that cannot be used, and why."""


def decode_image(data: bytes) -> np.ndarray:
    """The picture in `data` (any format Pillow reads) as RGB, uint8 (H, W, 3), oriented as its EXIF says.

    Transparency is laid on white; the first frame of an animation is taken. Raises ImageError.
    """
    from PIL import ImageOps

    with _opened(data) as picture:
        ImageOps.exif_transpose(picture, in_place=True)
        return np.array(_to_rgb(picture))


def read_size(data: bytes) -> tuple[int, int]:
    """(width, height) that `decode_image` would give it; only the header is read. Raises ImageError."""
    with _opened(data) as picture:
        turned = picture.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
        return (picture.height, picture.width) if turned else picture.size


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """The picture, not decoded yet; whatever goes wrong with it in the block is an ImageError."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as picture:
                if picture.width * picture.height > MAX_PIXELS or max(picture.size) > MAX_SIDE:
                    raise ImageError(
                        f"has {picture.width}x{picture.height} pixels; at most {MAX_PIXELS}, and {MAX_SIDE} "
                        "a side, are decoded"
                    )
                yield picture
    except ImageError:
        raise
    except UnidentifiedImageError:  # its text holds an address, which differs from run to run
        raise ImageError("cannot be decoded (it is in no known format)") from None
    except Exception as error:  # on damaged bytes Pillow's many readers raise nearly anything
        raise ImageError(f"cannot be decoded ({error})") from error


def _to_rgb(picture):
    from PIL import Image

    if picture.mode[0] in "IF":  # convert() would clip whatever exceeds 255
        values = np.asarray(picture)
        if picture.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise ImageError(f"{values.dtype} pixels beyond 16 bits: which value is white is not known")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")
