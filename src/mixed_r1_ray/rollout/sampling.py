"""How samples are drawn: seeds that depend on what is sampled, never on who samples it or when."""

from __future__ import annotations

import hashlib

MAX_SEED = 2**31 - 1


def group_seed(run_seed: int, step: int, prompt_id: str) -> int:
    """Seed of the first sample of a group; sample i uses seed + i.

    A hash, so that neighbouring steps and prompts share no stream, and the same on every machine.
    """
    digest = hashlib.blake2b(f"{run_seed}/{step}/{prompt_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % MAX_SEED
