"""Cuts a list of parameters into buckets small enough to gather, copy and hold two of at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Parameter = TypeVar("Parameter")
BUCKET_BYTES = 256 * 1024 * 1024


def to_buckets(
    parameters: Sequence[Parameter], size: Callable[[Parameter], int], limit: int = BUCKET_BYTES
) -> Iterator[list[Parameter]]:
    """Consecutive parameters of at most `limit` bytes a bucket; a larger one stands alone."""
    bucket, filled = [], 0
    for parameter in parameters:
        if bucket and filled + size(parameter) > limit:
            yield bucket
            bucket, filled = [], 0
        bucket.append(parameter)
        filled += size(parameter)
    if bucket:
        yield bucket
