"""Writes a rank's part of a checkpoint while the rank goes on training."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from threading import Thread

from mixed_r1_ray.policy.state import TrainingSnapshot
from mixed_r1_ray.runtime import checkpoints
from mixed_r1_ray.types import SaveRequest


class BackgroundSave:
    """A thread that writes the snapshot; on rank 0 it then waits for the other ranks' parts and commits."""

    def __init__(self, snapshot: TrainingSnapshot, request: SaveRequest):
        self._done: Future[None] = Future()
        # A daemon: a run that is stopped at once does not wait for it, and what it leaves is under a temporary name.
        Thread(target=self._run, args=(snapshot, request), name="checkpoint", daemon=True).start()

    def raise_failure(self) -> None:
        """Raises what went wrong so far; does not wait."""
        if self._done.done():
            self._done.result()

    def wait(self, deadline_s: float) -> None:
        """Returns when this rank's part is written, on rank 0 when the checkpoint is committed; raises what failed."""
        self._done.result(deadline_s)

    def _run(self, snapshot: TrainingSnapshot, request: SaveRequest) -> None:
        try:
            _write(snapshot, request)
        except BaseException as error:
            self._done.set_exception(error)
        else:
            self._done.set_result(None)


def _write(snapshot: TrainingSnapshot, request: SaveRequest) -> None:
    folder = Path(request.folder)
    checkpoints.note_part(folder, snapshot.rank, snapshot.write(folder))
    if snapshot.rank == 0:
        files = dict(request.files) | checkpoints.gather_parts(folder, snapshot.num_ranks, request.deadline_s)
        checkpoints.commit(folder, dict(request.state), files, request.keep, request.spare)
