"""Counts how often a learner's output head is gathered, passed through, and how many chunks that takes."""

from __future__ import annotations

from mixed_r1_ray.policy import head
from mixed_r1_ray.policy.learner import PolicyLearner


def count_head_work(learner: PolicyLearner, rows_a_chunk: int | None) -> dict[str, int]:
    """The counts, kept up to date from now on; `rows_a_chunk` tokens at a time, or as many as the code chooses."""
    from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator as Coordinator

    counts = {"gathers": 0, "passes": 0, "chunks": 0}
    fetch, chunks = Coordinator.fetch_sub_module, head._chunks

    def counted_fetch(self, module, forward):
        counts["gathers"] += isinstance(module, head.TokenLogprobs)
        return fetch(self, module, forward)

    def counted_chunks(weight, *tensors):
        made = list(chunks(weight, *tensors))
        counts["passes"] += 1
        counts["chunks"] += len(made)
        return made

    Coordinator.fetch_sub_module, head._chunks = counted_fetch, counted_chunks
    if rows_a_chunk:
        head.CHUNK_BYTES = 4 * rows_a_chunk * learner.policy.model.config.text_config.vocab_size
    return counts
