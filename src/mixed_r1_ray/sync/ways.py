"""Which way weights take from learners to engines. Reads the configuration alone, so that a plan can ask as well."""

from __future__ import annotations

from mixed_r1_ray.config import Config


def chosen_way(config: Config) -> str:
    """`rollout.weight_transfer`, with `auto` resolved: object_store, broadcast or ipc."""
    rollout, learner = config.rollout, config.learner
    if rollout.weight_transfer != "auto":
        return rollout.weight_transfer
    if not (rollout.gpus_per_worker and learner.gpus_per_worker) or config.algo.max_staleness:
        return "object_store"
    if not config.cluster.share_gpus:
        return "broadcast"
    return "ipc" if rollout.num_workers <= learner.num_workers else "object_store"
