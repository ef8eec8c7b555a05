"""Writes a run's checkpoints and finds the one to continue from."""

from __future__ import annotations

from mixed_r1_ray.config import Config
from mixed_r1_ray.data.loader import PromptLoader
from mixed_r1_ray.data.order import Order
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.policy.group import LearnerGroup
from mixed_r1_ray.runtime import checkpoints
from mixed_r1_ray.runtime.journal import Journal
from mixed_r1_ray.runtime.run_dir import RunDir


class Checkpointer:
    """Learner state lives in the checkpoint's files, the bad rows found so far in its manifest.

    All other state follows from the step: seeds, and which rows come next.
    """

    def __init__(
        self,
        config: Config,
        run_dir: RunDir,
        learners: LearnerGroup,
        journal: Journal,
        order: Order,
        train_data: PromptLoader,
    ):
        self.config, self.run_dir, self.learners, self.journal = config, run_dir, learners, journal
        self.order, self.train_data = order, train_data

    def save(self, step: int) -> None:
        """Writes the checkpoint of a finished step; it appears whole or not at all."""
        folder = checkpoints.begin(self.run_dir.checkpoints, step)
        self.learners.save(folder.resolve())
        rows = len(self.train_data.rows)
        state = {"step": step, "usable_rows": rows, "bad_rows": self.train_data.found()}
        checkpoints.commit(folder, state, self.config.run.keep_checkpoints)
        self.journal.say(f"checkpoint of step {step} written")

    def restore(self) -> int:
        """Loads the newest valid checkpoint of a resumed run and returns its step; 0 where none was written yet.

        Raises UserError where there are checkpoints but none is whole: starting over would throw the run away.
        """
        found, faults = checkpoints.newest_valid(self.run_dir.checkpoints) if self.run_dir.resumed else (None, [])
        for fault in faults:
            self.journal.warn(f"passed over: {fault}")
        if found is None and faults:
            raise UserError(
                f"no checkpoint in {self.run_dir.checkpoints} is whole: {'; '.join(faults)}. Restore one, or start the "
                "run over with run.resume=overwrite"
            )
        if found is None:
            self.journal.continue_from(0)
            return 0
        now = len(self.train_data.rows)
        before = found.state.get("usable_rows", now)
        if before != now:
            raise UserError(
                f"data.train={self.config.data.train} has {now} usable rows, and had {before} when {found.path} was "
                "written: other rows would come next than in the run so far. Put the data back, or start anew with "
                "another run.name"
            )
        self.learners.load(found.path.resolve())
        trained = map(self.order.batch, range(1, found.step + 1))
        self.train_data.restore(found.state.get("bad_rows", []), trained)
        self.journal.continue_from(found.step)
        self.journal.say(f"continuing after step {found.step}")
        return found.step
