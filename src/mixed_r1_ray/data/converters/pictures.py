"""Finds the pictures of examples and reads their sizes, without decoding them."""

from __future__ import annotations

import posixpath
from functools import lru_cache
from pathlib import Path

from mixed_r1_ray.data.converters.base import Picture, Skip
from mixed_r1_ray.data.images import ImageError, read_size


class PictureFolder:
    """The folder beneath which pictures lie. A path that leads out of it is refused."""

    def __init__(self, root: Path):
        self.root = root
        self._load = lru_cache(maxsize=16)(self._read)  # a picture's questions follow each other

    def load(self, picture: Picture) -> tuple[bytes, tuple[int, int]]:
        """The picture as its file holds it, and its (width, height). Raises Skip."""
        return _with_size(picture) if isinstance(picture, bytes) else self._load(tuple(picture))

    def _read(self, places: tuple[str, ...]) -> tuple[bytes, tuple[int, int]]:
        for place in places:
            inside = posixpath.normpath(place)
            if inside.startswith(("/", "..")):
                raise Skip("its picture's path leads out of the picture folder")
            try:
                return _with_size((self.root / inside).read_bytes())
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                continue
            except ValueError as error:
                if isinstance(error, Skip):
                    raise
                raise Skip("its picture's path is no path") from None  # a NUL inside
            except OSError as error:
                raise Skip(f"its picture cannot be read ({error.strerror})") from None
        raise Skip("its picture is not there")


def _with_size(data: bytes) -> tuple[bytes, tuple[int, int]]:
    try:
        return data, read_size(data)
    except ImageError as error:
        raise Skip("its picture cannot be used", str(error)) from None
