"""manifest.json: what a mixture holds, with the sha256 of every shard; written last, when all is there."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from mixed_r1_ray.data.shards import Shard, hash_file
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.runtime import atomic

MANIFEST = "manifest.json"
RECIPE = "recipe.yaml"
SPLITS = ("train", "held_out")  # folders of shards


@dataclass(frozen=True, slots=True)
class Taken:
    """One source of one reward type: records asked for, found fit, and written to each split."""

    reward_type: str
    source: str
    asked: int  # for both splits
    found: int
    train: int
    held_out: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """`plan` is a hash of recipe and inputs; the same plan gives the same bytes.

    shards: by split. inputs: name, rows and footer hash of every file. left_out: rows by reason.
    """

    name: str
    plan: str
    made_by: str
    recipe_sha256: str
    inputs: list[dict]
    taken: list[Taken]
    left_out: dict[str, int]
    shards: dict[str, list[dict]]

    def count(self, split: str) -> int:
        """Records of a split."""
        return sum(shard["records"] for shard in self.shards.get(split, []))

    def by_type(self, split: str) -> Counter[str]:
        """Records of a split by reward type."""
        counts: Counter[str] = Counter()
        for row in self.taken:
            counts[row.reward_type] += getattr(row, split)
        return counts

    def write(self, folder: Path) -> None:
        """Puts it in place; from then on the mixture counts as finished."""
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        atomic.write_text(folder / MANIFEST, text + "\n")


def shard_entry(split: str, shard: Shard) -> dict:
    """A shard as the manifest names it."""
    return {
        "file": f"{split}/{shard.name}",
        "records": shard.num_rows,
        "bytes": shard.num_bytes,
        "sha256": shard.sha256,
    }


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder, None where there is none. Raises UserError for one that cannot be read."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Manifest(**values | {"taken": [Taken(**row) for row in values["taken"]]})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: is no manifest of a mixture ({error}); remove it to build again") from error


def damage(folder: Path, manifest: Manifest) -> Iterator[tuple[Path, str]]:
    """Shards that are missing or differ from the manifest, each with what is wrong; reads every one."""
    for shards in manifest.shards.values():
        for shard in shards:
            path = folder / shard["file"]
            if not path.is_file():
                yield path, "is missing"
            elif hash_file(path) != shard["sha256"]:
                yield path, "differs from its sha256 in the manifest"


def text_hash(text: str) -> str:
    """sha256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()
