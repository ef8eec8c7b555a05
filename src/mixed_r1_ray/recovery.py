"""Keeps a run going: what no pool of actors can mend is mended by starting all of them anew, from the last checkpoint.

So the way back after the death of a learner, of a node or of what lay there is the way that `run.resume=auto` goes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mixed_r1_ray.actors import create_actors
from mixed_r1_ray.cluster import preflight, ray_nodes
from mixed_r1_ray.config import Config
from mixed_r1_ray.data.worker import DataWorker
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.placement import Placement, fitting
from mixed_r1_ray.remote import ActorFailure, watched
from mixed_r1_ray.restarts import Restarts
from mixed_r1_ray.runtime.journal import Journal
from mixed_r1_ray.runtime.run_dir import RunDir
from mixed_r1_ray.startup import Parts, start_parts
from mixed_r1_ray.watchdog import Watchdog

Train = Callable[[Config, Parts], None]


class Recovery:
    """Runs `train` on parts that it starts, and again after failures, `cluster.max_restarts` times without a step."""

    def __init__(self, config: Config, splits: dict[str, str], run_dir: RunDir, journal: Journal):
        self.config, self.splits, self.run_dir, self.journal = config, splits, run_dir, journal
        self._restarts = Restarts(config.cluster.max_restarts)
        self._started = False  # once: what the actors failed with was not the configuration
        self._first_step: int | None = None  # of the attempt at hand; None before its actors have started

    def run(self, where: Placement, train: Train) -> None:
        """Returns when `train` has. Raises what is no failure of actors, and what they fail with in the first start."""
        while True:
            try:
                return self._attempt(where, train)
            except ActorFailure as failure:
                if not self._started:
                    raise
                where = self._after(failure, where)

    def _attempt(self, where: Placement, train: Train) -> None:
        self._first_step = None
        actors = create_actors(self.config, where, DataWorker, self.splits)
        try:
            with watched(Watchdog(actors, self.config, self.journal.warn).look):
                parts = start_parts(self.config, actors, self.splits, self.run_dir, self.journal)
                self._started, self._first_step = True, parts.first_step
                train(self.config, parts)
        except ActorFailure:
            actors.end()
            raise

    def _after(self, failure: ActorFailure, where: Placement) -> Placement:
        """Where the next attempt goes. Raises UserError where there shall be none."""
        if self._first_step is not None and self.journal.last_step >= self._first_step:
            self._restarts.worked()
        self.journal.warn(f"the run goes back to its last checkpoint and starts its actors anew: {failure}")
        self._restarts.failed("the run", failure)
        self.run_dir = replace(self.run_dir, resumed=True)
        nodes = ray_nodes(self.config)
        there = {node.ray_id for node in nodes}
        lost = sorted({where.nodes[seat].name for seat in where.seats if where.nodes[seat].ray_id not in there})
        if lost and self.config.cluster.on_node_loss == "stop":
            raise UserError(
                f"node {', '.join(lost)} is lost and cluster.on_node_loss=stop; run.resume=auto continues from the last "
                f"checkpoint once it is back"
            ) from failure
        if lost:
            self.config = replace(fitting(self.config, nodes), cluster=replace(self.config.cluster, nodes=None))
        return preflight(self.config, self.journal.say)
