"""Cuts a global batch into ranks and microbatches. Pure and deterministic: every rank works out the whole plan alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mixed_r1_ray.types import TrainBatch, TrainGroup


@dataclass(frozen=True, slots=True)
class Row:
    """Part of a group that becomes one packed row: the group's index in the batch, and which of its samples."""

    group: int
    samples: tuple[int, ...]
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Microbatch:
    """Rows computed together. A `filler` keeps a rank in step with the others and adds nothing to the loss."""

    rows: tuple[Row, ...]
    filler: bool = False


def plan_microbatches(batch: TrainBatch, num_ranks: int, max_tokens: int) -> list[list[Microbatch]]:
    """Microbatches of each rank, the same number on all: ZeRO-3's collectives must meet.

    A microbatch holds rows of similar length, at most `max_tokens` in all (a single longer row stands alone); ranks
    get equal shares of tokens, longest rows first. Raises ValueError for a batch without a live sample.
    """
    rows = [row for index, group in enumerate(batch.groups) for row in _rows(index, group, max_tokens)]
    if not rows:
        raise ValueError(f"step {batch.step}: no sample of the batch has an advantage")
    shares = _balance(rows, num_ranks)
    plans = [_fill(share, max_tokens) for share in shares]
    filler = Microbatch(rows=(min(rows, key=lambda row: row.num_tokens),), filler=True)
    longest = max(len(plan) for plan in plans)
    return [plan + [filler] * (longest - len(plan)) for plan in plans]


def _rows(index: int, group: TrainGroup, max_tokens: int) -> list[Row]:
    """The group's live samples, in as many rows as `max_tokens` asks for; each repeats the prompt."""
    rows, samples, size = [], [], group.num_prompt_tokens
    for sample, advantage in enumerate(group.advantages):
        if advantage is None:
            continue
        length = group.response_lengths[sample]
        if samples and size + length > max_tokens:
            rows.append(Row(index, tuple(samples), size))
            samples, size = [], group.num_prompt_tokens
        samples.append(sample)
        size += length
    if samples:
        rows.append(Row(index, tuple(samples), size))
    return rows


def _balance(rows: Sequence[Row], num_ranks: int) -> list[list[Row]]:
    shares: list[list[Row]] = [[] for _ in range(num_ranks)]
    loads = [0] * num_ranks
    for row in sorted(rows, key=lambda row: (-row.num_tokens, row.group, row.samples)):
        rank = loads.index(min(loads))
        shares[rank].append(row)
        loads[rank] += row.num_tokens
    return shares


def _fill(rows: Sequence[Row], max_tokens: int) -> list[Microbatch]:
    """In the order of `rows`, each microbatch as full as it gets."""
    microbatches, current = [], []
    for row in rows:
        if current and sum(row.num_tokens for row in current) + row.num_tokens > max_tokens:
            microbatches.append(Microbatch(tuple(current)))
            current = []
        current.append(row)
    if current:
        microbatches.append(Microbatch(tuple(current)))
    return microbatches
