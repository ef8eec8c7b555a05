"""Cuts a step's batch into the batches of its optimizer steps. Pure: every rank works out the same ones."""

from __future__ import annotations

import numpy as np

from mixed_r1_ray.types import TrainBatch


def cut_minibatches(batch: TrainBatch, num_minibatches: int, num_epochs: int, seed: int) -> list[TrainBatch]:
    """The batch of each optimizer step, in order: `num_epochs` passes, each over every group once.

    A group stays whole. Which groups go together is drawn anew for each epoch, from seed and step. Groups without a
    live sample are left out of a cut batch; where fewer groups are left than minibatches, each is one by itself.
    """
    if num_minibatches == 1:
        return [batch] * num_epochs
    live = [group for group in batch.groups if any(advantage is not None for advantage in group.advantages)]
    minibatches = []
    for epoch in range(num_epochs):
        order = np.random.default_rng([seed, batch.step, epoch]).permutation(len(live))
        for part in np.array_split(order, min(num_minibatches, len(live))):
            minibatches.append(TrainBatch.of(batch.step, [live[index] for index in sorted(part)]))
    return minibatches
