"""Real learners, one after another in a process of their own, for tests that look inside them."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch.multiprocessing as multiprocessing

from mixed_r1_ray.config import Config

QUESTION = "Where is the red circle? Give its box."


def found_in_learners(
    configs: Mapping[str, Config],
    find: Callable[[Any], Any],
    folder: Path,
    prepare: Callable[[], None] | None = None,
    num_ranks: int = 1,
) -> dict[str, Any]:
    """What `find` returns of rank 0's PolicyLearner of each configuration.

    `find`, and `prepare`, which is called before any model is built, are pickled.
    """
    multiprocessing.spawn(_find, (dict(configs), find, folder, prepare, num_ranks), nprocs=num_ranks)
    return pickle.loads((folder / "found.pickle").read_bytes())


def _find(rank: int, configs: dict[str, Config], find, folder: Path, prepare, num_ranks: int) -> None:
    from mixed_r1_ray.environment import prepare_environment

    prepare_environment(next(iter(configs.values())))
    import deepspeed

    from mixed_r1_ray.policy.learner import PolicyLearner, Rendezvous

    if prepare is not None:
        prepare()
    found = {}
    for name, config in configs.items():
        found[name] = find(PolicyLearner(config, Rendezvous(f"file://{folder}/rendezvous {name}", rank, num_ranks)))
        deepspeed.comm.destroy_process_group()
        deepspeed.comm.comm.cdb = None
    if rank == 0:
        (folder / "found.pickle").write_bytes(pickle.dumps(found))


def make_group(adapter, responses: int, length: int, pictures: int = 1, words: int = 0):
    """(a prompt of `pictures` pictures and `words` further words, responses to it of `length` tokens each)."""
    random = np.random.default_rng(0)
    images = [random.integers(0, 255, (112, 112, 3), dtype=np.uint8) for _ in range(pictures)]
    inputs = adapter.encode(adapter.prompt_text(QUESTION + " red" * words, pictures), images)
    ordinary = sorted(set(range(len(adapter.tokenizer))) - set(adapter.banned_token_ids))
    return inputs, [random.choice(ordinary, length).astype(np.int32) for _ in range(responses)]


def packed_group(policy, responses: int, length: int, pictures: int = 1, words: int = 0):
    """As `make_group`, for the policy to take."""
    inputs, row = make_group(policy.adapter, responses, length, pictures, words)
    return policy.pack([inputs], [row])
