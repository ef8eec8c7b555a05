"""The learner actor: a `PolicyLearner` that can be started late, saved and restored."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import ray
from ray import ObjectRef

from mixed_r1_ray.config import Config
from mixed_r1_ray.gpu_memory import forget_peak, peak_bytes
from mixed_r1_ray.policy.background_save import BackgroundSave
from mixed_r1_ray.policy.finite import check_loaded
from mixed_r1_ray.policy.learner import PolicyLearner, Rendezvous
from mixed_r1_ray.policy.state import load_training_state, take_snapshot
from mixed_r1_ray.sync.broadcast import Meeting
from mixed_r1_ray.sync.shared import SharedBucket
from mixed_r1_ray.types import Bucket, Layout, Reading, SaveRequest, TrainBatch, WeightUpdate
from mixed_r1_ray.whereabouts import observed


@ray.remote
@observed
class LearnerWorker:
    """One rank as an actor. `start` is apart from the constructor: ranks must know where the first one lives."""

    def __init__(self, config: Config):
        self.config = config
        self.learner: PolicyLearner | None = None
        self.saving: BackgroundSave | None = None

    def home(self) -> tuple[str, str]:
        """This actor's node, and an address:port there that is free now."""
        context = ray.get_runtime_context()
        address = ray.util.get_node_ip_address()
        with socket.socket() as probe:
            probe.bind((address, 0))
            return context.get_node_id(), f"{address}:{probe.getsockname()[1]}"

    def start(self, rendezvous: Rendezvous) -> str:
        """Loads the model; returns what computes its attention."""
        self.learner = PolicyLearner(self.config, rendezvous)
        return self.learner.policy.attention_kernel

    def sleep(self) -> int | None:
        """Off its GPU; returns the most bytes that were in use there."""
        peak = peak_bytes()
        if self.learner is not None:
            self.learner.sleep()
        return peak

    def wake(self) -> None:
        """Back to its GPU. Before `start` there is nothing to bring there."""
        forget_peak()
        if self.learner is not None:
            self.learner.wake()

    def update(self, batch: TrainBatch) -> dict[str, float]:
        if self.saving is not None:
            self.saving.raise_failure()
        return self.learner.update(batch)

    def logprobs(self, inputs: Sequence[ObjectRef], groups: Sequence[ObjectRef], reading: Reading) -> list[np.ndarray]:
        """Of each prompt's responses, one behind the other."""
        responses = [[rollout.token_ids for rollout in group.rollouts] for group in ray.get(list(groups))]
        pictures = reading.pictures and ray.get(reading.pictures)
        return self.learner.logprobs(ray.get(list(inputs)), responses, replace(reading, pictures=pictures))

    def weights(self, version: int) -> WeightUpdate | None:
        return self.learner.outgoing.update(version)

    def constant_weights(self) -> tuple[Bucket, ...]:
        return self.learner.outgoing.constant()

    def weight_layouts(self) -> tuple[Layout, ...]:
        return self.learner.outgoing.layouts()

    def join_broadcast(self, meeting: Meeting) -> None:
        self.learner.outgoing.join(meeting)

    def broadcast_weights(self) -> None:
        self.learner.outgoing.broadcast()

    def lend_weights(self) -> tuple[SharedBucket, ...]:
        return self.learner.outgoing.lend()

    def take_back_weights(self) -> None:
        self.learner.outgoing.take_back()

    def save(self, request: SaveRequest) -> None:
        """Copies the state and returns; a thread writes it."""
        self.saving = BackgroundSave(take_snapshot(self.learner), request)

    def await_save(self, deadline_s: float) -> None:
        """Returns when the last `save` has been written."""
        if self.saving is not None:
            self.saving.wait(deadline_s)

    def load(self, folder: str) -> None:
        """Raises Unusable where what lies there is no use; another may then be loaded."""
        load_training_state(self.learner, Path(folder))
        check_loaded(self.learner, Path(folder))
