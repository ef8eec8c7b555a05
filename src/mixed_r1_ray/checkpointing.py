"""Writes a run's checkpoints and finds the one to continue from."""

from __future__ import annotations

import time
from collections.abc import Collection

from mixed_r1_ray.config import Config
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.policy.group import LearnerGroup
from mixed_r1_ray.remote import ActorFailure
from mixed_r1_ray.runtime import checkpoints
from mixed_r1_ray.runtime.checkpoint_choice import best_of
from mixed_r1_ray.runtime.checkpoints import Checkpoint
from mixed_r1_ray.runtime.journal import Journal
from mixed_r1_ray.runtime.run_dir import RunDir
from mixed_r1_ray.sampler import Sampler
from mixed_r1_ray.types import SaveRequest

AFTER_FAILURE_S = 30.0


class Checkpointer:
    """Learner state lives in the checkpoint's files, the sampler's in a file of its own and the manifest.

    All other state follows from the step: seeds, and which rows come next.
    """

    def __init__(
        self, config: Config, run_dir: RunDir, learners: LearnerGroup, sampler: Sampler, journal: Journal
    ):
        self.config, self.run_dir, self.journal = config, run_dir, journal
        self.learners, self.sampler = learners, sampler
        self._writing: int | None = None  # step of a checkpoint that may not have its name yet

    def save(self, step: int) -> None:
        """Has the learners copy the state of a finished step; they write it while training goes on.

        Waits for the former checkpoint first. Raises UserError where that one could not be written.
        """
        begun = time.perf_counter()
        self.finish()
        run = self.config.run
        folder = checkpoints.begin(self.run_dir.checkpoints, step)
        spare = self._best([*checkpoints.steps_of(self.run_dir.checkpoints), step])
        deadline_s = self.config.learner.timeout_s
        state = {"step": step} | self.sampler.save(folder)
        files = {name: entry for path in folder.iterdir() for name, entry in checkpoints.seal(folder, path).items()}
        self.learners.save(SaveRequest(str(folder.resolve()), state, files, run.keep_checkpoints, spare, deadline_s))
        self._writing = step
        self.journal.checkpoint(time.perf_counter() - begun)

    def finish(self, timeout_s: float | None = None) -> None:
        """Waits until what is being written has its name; learner.timeout_s at most, or less."""
        if self._writing is not None:
            step, self._writing = self._writing, None
            self.learners.await_save(timeout_s)
            if checkpoints.folder_of(self.run_dir.checkpoints, step).is_dir():
                self.journal.say(f"checkpoint of step {step} written")
            else:  # the learners were started anew meanwhile and know nothing of it
                self.journal.warn(f"the checkpoint of step {step} was lost with the learners that wrote it")

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """What is being written is finished, also after an error of the run; a second Ctrl-C does not wait.

        Where actors failed, it may be those that write: they get little time.
        """
        try:
            if kind is None or issubclass(kind, UserError):
                self.finish(AFTER_FAILURE_S if kind is not None and issubclass(kind, ActorFailure) else None)
        except UserError as error:
            if kind is None:
                raise
            self.journal.warn(f"the last checkpoint was not finished: {error}")

    def is_new_best(self, step: int) -> bool:
        """Whether `run.keep_best` is at its largest so far in the evaluation that followed `step`."""
        return self._best([step]) == step == self._best(range(1, step + 1))

    def _best(self, steps: Collection[int]) -> int | None:
        metric = self.config.run.keep_best
        return metric and best_of(self.run_dir, metric, steps)

    def restore(self) -> int:
        """Loads the newest usable checkpoint of a resumed run and returns its step; 0 where none was written yet.

        Raises UserError where there are checkpoints but none is usable: starting over would throw the run away.
        """
        root = self.run_dir.checkpoints
        found, faults = checkpoints.newest_valid(root, self._load) if self.run_dir.resumed else (None, [])
        for fault in faults:
            self.journal.warn(f"passed over: {fault}")
        if found is None and faults:
            raise UserError(
                f"no checkpoint in {root} can be used: {'; '.join(faults)}. Restore one, or start the run over with "
                "run.resume=overwrite"
            )
        if found is None:
            self.journal.continue_from(0)
            return 0
        self.sampler.restore(found.state, found.step, found.path)
        self.journal.continue_from(found.step)
        self.journal.say(f"continuing after step {found.step}")
        return found.step

    def _load(self, checkpoint: Checkpoint) -> None:
        self.learners.load(checkpoint.path.resolve())
