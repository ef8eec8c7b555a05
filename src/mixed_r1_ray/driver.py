"""The RL loop. Everything heavy is in actors; here are references, small metadata and the order of things."""

from __future__ import annotations

from mixed_r1_ray.before_start import check_before_start
from mixed_r1_ray.clock import Clock
from mixed_r1_ray.cluster import connected
from mixed_r1_ray.config import Config
from mixed_r1_ray.experience import make_batch, overlong_metrics, rollout_rows, staleness_metrics
from mixed_r1_ray.guard import MismatchError
from mixed_r1_ray.interrupt import StopRequest
from mixed_r1_ray.proof import prove
from mixed_r1_ray.recovery import Recovery
from mixed_r1_ray.runtime.journal import Journal
from mixed_r1_ray.runtime.run_dir import open_run_dir
from mixed_r1_ray.startup import Parts, prepare_inputs
from mixed_r1_ray.types import TrainBatch


def run(config: Config) -> None:
    """Runs `config` from its first step, or the one after its last checkpoint, to `run.max_steps`."""
    check_before_start(config)
    with open_run_dir(config) as run_dir, Journal(config, run_dir) as journal, connected(config, journal.say) as where:
        config, splits = prepare_inputs(config, journal)
        recovery = Recovery(config, splits, run_dir, journal)
        recovery.run(where, lambda config, parts: Driver(config, parts, journal).train())


class Driver:
    """sample → generate → score → advantage → update → sync, `run.max_steps` times."""

    def __init__(self, config: Config, parts: Parts, journal: Journal):
        self.config, self.parts, self.journal = config, parts, journal

    def train(self) -> None:
        """Steps, evaluations and checkpoints; a stop request (Ctrl-C, SIGTERM) ends it after the step at hand."""
        run, step = self.config.run, self.parts.first_step - 1
        self.sync(step)
        if step == 0:
            self.evaluate(step)
        with StopRequest(self.journal.say, "stopping after this step, with a checkpoint") as stop:
            with self.parts.checkpoints as checkpoints:
                while step < run.max_steps and not stop.requested:
                    step += 1
                    self.journal.step(step, self.train_step(step))
                    if self.config.algo.max_staleness and step % self.config.guard.probe_every == 0:
                        self.prove(step)
                    if self.config.eval.every and step % self.config.eval.every == 0:
                        self.evaluate(step)
                    due = step % run.checkpoint_every == 0 or step == run.max_steps or stop.requested
                    if due or checkpoints.is_new_best(step):
                        checkpoints.save(step)
            stop.raise_if_requested()
        self.evaluate(step)
        self.journal.report(self.parts.eval_pictures)

    def train_step(self, step: int) -> dict[str, float]:
        """Samples, learns from it and hands the new weights to the engines; returns the step's metrics."""
        parts, clock = self.parts, Clock()
        pipeline = parts.sampler.pipeline
        sampled = parts.sampler.sample(step, clock)
        batch = make_batch(step, sampled.batch, self.config)
        with clock.phase("learn"):
            learned = self._learn(batch)
        if skipped := learned["updates/skipped"]:
            self.journal.warn(
                f"step {step}: {skipped} of {learned['updates']} updates skipped, for their gradient was not finite; the "
                f"run stops at {self.config.learner.max_skipped_updates} in a row (learner.max_skipped_updates)"
            )
        with clock.phase("sync"):
            parts.transfer.hand_over(step)
        if self.journal.wants_rollouts(step):
            self.journal.rollouts(step, rollout_rows(sampled.batch, batch))
        scored = [experience.scored() for experience in sampled.generated]
        learned |= staleness_metrics(step, sampled.batch) | overlong_metrics(sampled.generated, self.config)
        learned |= sampled.metrics | parts.turns.metrics()
        return self.journal.summarise(scored, learned, clock, len(parts.train_data.bad_rows))

    def _learn(self, batch: TrainBatch) -> dict[str, float]:
        """The update. Where it finds engine and trainer apart, the proof looks for the cause on a few samples."""
        try:
            return self.parts.learners.update(batch, meanwhile=self.parts.sampler.pipeline.advance)
        except MismatchError:
            if self.config.algo.max_staleness == 0:  # else engines may be behind, and rightly
                self.prove(batch.step)
            raise

    def sync(self, step: int) -> None:
        """Gives the engines the learners' weights and proves that both are now one distribution."""
        self.parts.transfer.hand_over(step)
        self.prove(step)

    def prove(self, step: int) -> None:
        """Samples a few answers with the weights of now; engines, learners and reference must agree on them."""
        parts, config = self.parts, self.config
        self.journal.say("proving that engine, trainer and reference agree")
        num_probes = max(config.guard.num_probe_prompts, config.rollout.num_workers)  # every engine gets one
        probes = parts.sampler.pipeline.probes(num_probes)
        worst = prove(probes, parts.rollout, parts.learners, parts.references, parts.guard, step)
        self.journal.say(f"log-probabilities agree to {worst:.1e}")

    def evaluate(self, step: int) -> None:
        """Scores the held-out split with the current weights, unless this step's result is there already."""
        if self.parts.evaluator is not None and not self.journal.has_evaluation(step):
            self.journal.say(f"evaluating {len(self.parts.evaluator.indices)} held-out prompts")
            clock = Clock()
            results = self.parts.evaluator.run()
            self.journal.evaluation(step, results, clock.metrics()["time/step_s"])
