"""A flat sequence of tokens cut into segments, and segments of similar length laid side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from mixed_r1_ray.policy.device import to_device

SIMILAR = 0.5  # shortest over longest segment of a bucket (choice)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the tokens of S segments stand, as S rows of T; shorter segments are padded by their first token."""

    rows: Tensor  # int64 (S, T)
    real: Tensor  # int64 (n,), which of the S * T are no padding
    tokens: Tensor  # int64 (n,), where those stand

    @classmethod
    def of(cls, spans: Sequence[tuple[int, int]]) -> Places:
        """spans: (first token, length) of each segment."""
        firsts, lengths = torch.tensor(spans).unbind(1)
        steps = torch.arange(int(lengths.max()))
        real = steps < lengths.unsqueeze(1)
        rows = firsts.unsqueeze(1) + steps * real
        return cls(rows, real.flatten().nonzero().flatten(), rows[real])

    def gather(self, flat: Tensor) -> Tensor:
        """(L, ...) -> (S, T, ...)"""
        return flat.index_select(0, self.rows.flatten()).unflatten(0, self.rows.shape)

    def gather_real(self, flat: Tensor, padding: float) -> Tensor:
        """(L, ...) -> (S, T, ...), `padding` where there is no token."""
        padded = flat.new_full((self.rows.numel(), *flat.shape[1:]), padding)
        return padded.index_copy_(0, self.real, flat.index_select(0, self.tokens)).unflatten(0, self.rows.shape)

    def scatter(self, padded: Tensor, flat: Tensor) -> None:
        """Writes (S, T, ...) to where its tokens stand in `flat`, (L, ...)."""
        flat.index_copy_(0, self.tokens, padded.flatten(0, 1).index_select(0, self.real))


@dataclass(frozen=True, slots=True)
class Bucket:
    """Segments computed together. Padded keys stand behind every real query, or there are none."""

    queries: Places
    keys: Places


@dataclass(frozen=True)
class Segments:
    """Segment i's queries see segment i's keys. Queries stand one segment behind the other, and so do keys.

    causal: query t of a segment sees its keys up to t (there are as many keys as queries); else it sees all of them.
    """

    query_lengths: tuple[int, ...]
    key_lengths: tuple[int, ...]
    causal: bool
    query_starts: Tensor  # int32 (segments + 1,)
    key_starts: Tensor  # int32 (segments + 1,)

    @classmethod
    def within(cls, lengths: Sequence[int], causal: bool) -> Segments:
        """Tokens that see those of their own segment."""
        return cls(tuple(lengths), tuple(lengths), causal, *2 * (_starts(lengths),))

    @classmethod
    def across(cls, query_lengths: Sequence[int], key_lengths: Sequence[int]) -> Segments:
        """Tokens that see all of a segment of another sequence."""
        return cls(tuple(query_lengths), tuple(key_lengths), False, _starts(query_lengths), _starts(key_lengths))

    @cached_property
    def buckets(self) -> tuple[Bucket, ...]:
        """For kernels that take one length a call: made when the first of them asks."""
        return to_device(tuple(_buckets(self)), self.query_starts.device)


def _starts(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)


def _buckets(segments: Segments) -> Iterator[Bucket]:
    """Longest first. Only causality hides padded keys; without it a bucket's segments have as many keys."""
    queries, keys = (
        list(zip(accumulate(lengths, initial=0), lengths, strict=False))
        for lengths in (segments.query_lengths, segments.key_lengths)
    )
    waiting = sorted(range(len(queries)), key=lambda i: (keys[i][1], queries[i][1]), reverse=True)
    while waiting:
        longest = waiting[0]
        together = [
            i
            for i in waiting
            if queries[i][1] >= SIMILAR * queries[longest][1] and (segments.causal or keys[i][1] == keys[longest][1])
        ]
        waiting = [i for i in waiting if i not in set(together)]
        yield Bucket(Places.of([queries[i] for i in together]), Places.of([keys[i] for i in together]))
