"""Which records a mixture takes, and into which split: quotas, what is there, and pictures held apart."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mixed_r1_ray.data.held_out import hold_out
from mixed_r1_ray.data.manifest import SPLITS, Taken
from mixed_r1_ray.data.quotas import fill, proportional, wanted_records
from mixed_r1_ray.data.recipe import Recipe
from mixed_r1_ray.data.record_files import InputFile, read_batches
from mixed_r1_ray.data.record_index import RecordIndex
from mixed_r1_ray.errors import UserError

PICTURE_HASH_BYTES = 8  # should two pictures share one, their records stay together, and no more


@dataclass(frozen=True, slots=True)
class Selection:
    """rows: rising indices into the RecordIndex, by split. taken: the same in numbers, by source."""

    rows: dict[str, np.ndarray]
    taken: list[Taken]

    def remarks(self, recipe: Recipe) -> Iterator[str]:
        """What came out otherwise than asked, in words."""
        for row in self.taken:
            if row.found < row.asked:
                yield f"{row.source} ({row.reward_type}): {row.asked:,} asked, {row.found:,} found"
        for split, asked in zip(SPLITS, (recipe.size, recipe.held_out), strict=True):
            if len(self.rows[split]) != asked:
                yield f"{split}: {len(self.rows[split]):,} records instead of {asked:,}"


def select(index: RecordIndex, recipe: Recipe, files: Sequence[InputFile]) -> Selection:
    """Draws both splits. Raises UserError where nothing fits, or a shortfall is to be refused."""
    wanted = wanted_records(
        recipe.size,
        {kind: of_type.quota for kind, of_type in recipe.types.items()},
        {stratum: source.quota for stratum, source in recipe.strata()},
    )
    held_out = proportional(recipe.held_out, {name: float(number) for name, number in wanted.items()})
    asked = {name: wanted[name] + held_out[name] for name in wanted}
    available = index.available()
    short = {name: number for name, number in asked.items() if available[name] < number}
    if short and recipe.shortfall == "refuse":
        lines = [
            f"  {name[1]} ({name[0]}): {n:,} asked, {available[name]:,} found" for name, n in short.items()
        ]
        raise UserError(
            "too few records, and `shortfall` is refuse; nothing was written\n" + "\n".join(lines)
        )
    numbers = fill(asked, available)
    if not any(numbers.values()):
        raise UserError(f"no record fits the recipe; left out: {dict(index.left_out) or 'there were none'}")
    drawn = index.draw(numbers)
    mask = np.zeros(len(drawn), dtype=bool)
    if recipe.held_out:
        share = recipe.held_out / (recipe.held_out + recipe.size)
        parts = proportional(
            round(share * len(drawn)), {name: float(number) for name, number in numbers.items()}
        )
        owner, picture = picture_hashes(index, drawn, files)
        mask = hold_out(index.key[drawn], index.stratum[drawn], owner, picture, index.strata, parts)
    rows = {"train": drawn[~mask], "held_out": drawn[mask]}
    counts = {
        split: np.bincount(index.stratum[of], minlength=len(index.strata)) for split, of in rows.items()
    }
    taken = [
        Taken(*name, asked[name], available[name], *(int(counts[split][place]) for split in SPLITS))
        for place, name in enumerate(index.strata)
    ]
    return Selection(rows, taken)


def picture_hashes(
    index: RecordIndex, drawn: np.ndarray, files: Sequence[InputFile]
) -> tuple[np.ndarray, np.ndarray]:
    """Of every picture of the drawn records: the place of its record in `drawn`, and its hash, uint64.

    Of the encoded bytes, read a batch at a time and let go: the same picture in another encoding has another
    hash; near-duplicates are for `select` to find (choice).
    """
    owners, hashes, record = array("q"), array("Q"), 0
    for number in np.unique(index.file[drawn]):
        rows = index.row[drawn[index.file[drawn] == number]]
        for _, batch in read_batches(files[number], ["images"], rows):
            for pictures in batch.column("images"):
                for picture in pictures.values or ():
                    owners.append(record)
                    hashes.append(_hash(picture))
                record += 1
    return np.frombuffer(owners, dtype=np.int64), np.frombuffer(hashes, dtype=np.uint64)


def _hash(picture: pa.StructScalar) -> int:
    content = picture["bytes"].as_buffer() if picture.is_valid else None
    return int.from_bytes(hashlib.blake2b(content or b"", digest_size=PICTURE_HASH_BYTES).digest(), "big")
