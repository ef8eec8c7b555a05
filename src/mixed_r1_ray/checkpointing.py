"""Writes a run's checkpoints and finds the one to continue from."""

from __future__ import annotations

from mixed_r1_ray.config import Config
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.policy.group import LearnerGroup
from mixed_r1_ray.runtime import checkpoints
from mixed_r1_ray.runtime.journal import Journal
from mixed_r1_ray.runtime.run_dir import RunDir
from mixed_r1_ray.sampler import Sampler


class Checkpointer:
    """Learners and sampler write what cannot be computed again; seeds and the order of data follow from the step."""

    def __init__(
        self, config: Config, run_dir: RunDir, learners: LearnerGroup, sampler: Sampler, journal: Journal
    ):
        self.config, self.run_dir, self.journal = config, run_dir, journal
        self.learners, self.sampler = learners, sampler

    def save(self, step: int) -> None:
        """Writes the checkpoint of a finished step; it appears whole or not at all."""
        folder = checkpoints.begin(self.run_dir.checkpoints, step)
        self.learners.save(folder.resolve())
        state = {"step": step} | self.sampler.save(folder)
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
        self.learners.load(found.path.resolve())
        self.sampler.restore(found.state, found.path)
        self.journal.continue_from(found.step)
        self.journal.say(f"continuing after step {found.step}")
        return found.step
