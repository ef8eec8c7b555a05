"""The learner ranks as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from ray import ObjectRef

from mixed_r1_ray.config import Config
from mixed_r1_ray.policy.learner import Rendezvous
from mixed_r1_ray.remote import fetch
from mixed_r1_ray.rollout.pool import FinishedGroup
from mixed_r1_ray.sync.shared import SharedBucket
from mixed_r1_ray.turns import Turns, no_turns
from mixed_r1_ray.types import Bucket, Layout, Reading, SaveRequest, TrainBatch, WeightUpdate

AS_CONFIGURED = Reading()
SPARE_S = 30.0  # for an answer after the ranks' own deadline


class LearnerGroup:
    """Calls go to all ranks at once: each is a collective."""

    def __init__(self, workers: Sequence, config: Config, turns: Turns | None = None):
        self.workers = list(workers)
        self.config = config
        self._turns = turns or no_turns()
        self._meeting: TemporaryDirectory | None = None  # for as long as the ranks live

    def start(self) -> str:
        """Joins the ranks and loads the model; returns what computes its attention.

        On one node they meet in a file, so that no port is opened.
        """
        timeout_s = self.config.learner.start_timeout_s
        homes = fetch([worker.home.remote() for worker in self.workers], what="learner ranks starting", deadline_s=timeout_s)
        nodes = {node for node, _ in homes}
        if len(nodes) == 1:
            self._meeting = TemporaryDirectory(prefix="mixed_r1_ray_", ignore_cleanup_errors=True)
            address = f"file://{self._meeting.name}/rendezvous"
        else:
            address = f"tcp://{homes[0][1]}"
        return self._all("start", lambda rank: (Rendezvous(address, rank, len(self.workers)),), "starting", timeout_s)[0]

    def update(self, batch: TrainBatch, meanwhile: Callable[[], None] | None = None) -> dict[str, float]:
        """The optimizer steps of one batch; returns its metrics. `meanwhile` is called now and then until then."""
        return self._all("update", lambda rank: (batch,), f"updating at step {batch.step}", meanwhile=meanwhile)[0]

    def logprobs(self, groups: Sequence[FinishedGroup], reading: Reading = AS_CONFIGURED) -> list[np.ndarray]:
        """Log-probabilities of all responses of each group under the current weights, one behind the other.

        All groups go through one forward, laid out as for an update.
        """
        inputs, responses = [one.prompt.inputs for one in groups], [one.group for one in groups]
        judging = f"judging prompts {', '.join(repr(one.prompt.prompt_id) for one in groups)}"
        return self._all("logprobs", lambda rank: (inputs, responses, reading), judging)[0]

    def weights(self, version: int) -> WeightUpdate:
        """The current weights, in the object store."""
        return self._all("weights", lambda rank: (version,), f"gathering weight version {version}")[0]

    def constant_weights(self) -> tuple[Bucket, ...]:
        """Those that training never changes, in the object store."""
        return self._all("constant_weights", lambda rank: (), "gathering the weights that stay")[0]

    def weight_layouts(self) -> tuple[Layout, ...]:
        """Of the buckets in which `begin_broadcast` sends and `lend_weights` lends."""
        what = "learner[0] laying out its weights"
        return fetch(self.workers[0].weight_layouts.remote(), what=what, deadline_s=self.config.learner.timeout_s)

    def begin_broadcast(self) -> list[ObjectRef]:
        """Has the ranks send what training changes; returns their answers, which are there when it has arrived."""
        self._turns.take("learner")
        return [worker.broadcast_weights.remote() for worker in self.workers]

    def lend_weights(self, version: int) -> list[tuple[SharedBucket, ...]]:
        """What training changes, lent by each rank to an engine on its device."""
        return self._all("lend_weights", lambda rank: (), f"lending weight version {version}")

    def take_back_weights(self) -> None:
        """Ends a loan; whoever's turn it is."""
        answers = [worker.take_back_weights.remote() for worker in self.workers]
        what, deadline_s = "learner ranks taking back what they lent", self.config.learner.timeout_s
        fetch(answers, what=what, deadline_s=deadline_s)

    def save(self, request: SaveRequest) -> None:
        """Copies weights and optimizer state, each rank its share; threads of the ranks write and commit them."""
        self._all("save", lambda rank: (request,), f"copying their state for {request.folder}")

    def await_save(self, timeout_s: float | None = None) -> None:
        """Returns when the last `save` is committed. Raises UserError naming the rank and the file that failed.

        timeout_s: learner.timeout_s if not given.
        """
        timeout_s = timeout_s or self.config.learner.timeout_s
        self._all("await_save", lambda rank: (timeout_s,), "writing a checkpoint", timeout_s + SPARE_S)

    def load(self, folder: Path) -> None:
        """Takes over what any number of ranks saved into `folder`."""
        self._all("load", lambda rank: (str(folder),), f"reading {folder}")

    def _all(self, method: str, arguments, doing: str, timeout_s: float | None = None, meanwhile=None) -> list:
        self._turns.take("learner")
        answers = [getattr(worker, method).remote(*arguments(rank)) for rank, worker in enumerate(self.workers)]
        deadline_s = timeout_s or self.config.learner.timeout_s
        what = f"learner ranks 0-{len(answers) - 1} {doing}"
        return fetch(answers, what=what, deadline_s=deadline_s, meanwhile=meanwhile)
