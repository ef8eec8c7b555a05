"""What benchmarks/attention.py compares with: packed rows padded to the longest, responses attending through masks.

Each response attends to a copy of its prompt's keys and to its own past, in torch's scaled_dot_product_attention with a
boolean mask; responses of similar length are computed together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention

SIMILAR = 0.5  # shortest over longest response of a bucket


@dataclass(frozen=True, slots=True)
class ResponseBucket:
    """S responses of at most T tokens; W, the longest prompt."""

    rows: torch.Tensor  # int64 (S,), the packed row of each
    tokens: torch.Tensor  # int64 (S, T), places in the flattened B * L
    real: torch.Tensor  # bool (S, T), False: padding
    mask: torch.Tensor  # bool (S, 1, T, W + T), True: attends


@dataclass(frozen=True, slots=True)
class MaskedAttention:
    """For B rows of L tokens, a prompt and its responses each."""

    prompt_width: int
    buckets: tuple[ResponseBucket, ...]
    origin: torch.Tensor  # int64 (B * L,), where each token's output stands in [prompts, bucket 0, bucket 1, ...]

    @classmethod
    def plan(cls, prompt_lengths: Sequence[int], response_lengths: Sequence[Sequence[int]], width: int) -> MaskedAttention:
        prompts, prompt_width = torch.tensor(prompt_lengths), max(prompt_lengths)
        rows, places = torch.arange(len(prompts)).unsqueeze(1), torch.arange(width)
        origin = (rows * prompt_width + places.clamp(max=prompt_width - 1)).flatten()
        buckets = tuple(_buckets(prompts, response_lengths, width))
        computed = len(prompts) * prompt_width
        for bucket in buckets:
            origin[bucket.tokens[bucket.real]] = computed + bucket.real.flatten().nonzero().flatten()
            computed += bucket.real.numel()
        return cls(prompt_width, buckets, origin)

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """query (B, H, L, D); key, value the same, or with a divisor of H heads -> (B, L, H, D)."""
        options = {"enable_gqa": key.shape[1] != query.shape[1]}
        prompt = [part[:, :, : self.prompt_width] for part in (query, key, value)]
        flat = [part.transpose(1, 2).flatten(0, 1) for part in (query, key, value)]
        outputs = [scaled_dot_product_attention(*prompt, is_causal=True, **options)]
        for bucket in self.buckets:
            own = [part.index_select(0, bucket.tokens.flatten()).unflatten(0, bucket.tokens.shape) for part in flat]
            own_query, own_key, own_value = (part.transpose(1, 2) for part in own)
            keys = torch.cat([prompt[1].index_select(0, bucket.rows), own_key], dim=2)
            values = torch.cat([prompt[2].index_select(0, bucket.rows), own_value], dim=2)
            outputs.append(scaled_dot_product_attention(own_query, keys, values, attn_mask=bucket.mask, **options))
        computed = torch.cat([output.transpose(1, 2).flatten(0, 1) for output in outputs])
        return computed.index_select(0, self.origin).unflatten(0, (query.shape[0], query.shape[2]))


def _buckets(prompts: torch.Tensor, response_lengths: Sequence[Sequence[int]], width: int) -> Iterator[ResponseBucket]:
    spans = []  # (length, row, first place) of each response
    for row, lengths in enumerate(response_lengths):
        place = row * width + int(prompts[row])
        for length in lengths:
            spans.append((length, row, place))
            place += length
    spans.sort(reverse=True)
    while spans:
        count = sum(length >= SIMILAR * spans[0][0] for length, _, _ in spans)
        lengths, rows, places = torch.tensor(spans[:count]).unbind(1)
        spans = spans[count:]
        steps = torch.arange(int(lengths[0]))
        real = steps < lengths.unsqueeze(1)
        in_prompt = torch.arange(int(prompts.max())) < prompts[rows].unsqueeze(1)
        past = steps <= steps.unsqueeze(1)
        mask = torch.cat([in_prompt.unsqueeze(1).expand(-1, len(steps), -1), past.expand(count, -1, -1)], dim=2)
        yield ResponseBucket(rows, places.unsqueeze(1) + steps * real, real, mask.unsqueeze(1))
