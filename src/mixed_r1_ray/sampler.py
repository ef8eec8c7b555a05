"""A step's experiences: prompts drawn, answered and scored, and more of them until enough have something to tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mixed_r1_ray.clock import Clock
from mixed_r1_ray.config import Config
from mixed_r1_ray.data.draws import PromptDraws
from mixed_r1_ray.data.loader import PromptLoader
from mixed_r1_ray.data.order import Order
from mixed_r1_ray.data.reader import UsableRows
from mixed_r1_ray.dynamic_sampling import InformativeGroups
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.experience import Experience, Scorer, check_unscored
from mixed_r1_ray.pipeline import Pipeline, uncorrected
from mixed_r1_ray.rollout.pool import RolloutPool


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a step learns from, and all that was generated for it: the same without dynamic sampling."""

    batch: list[Experience]
    generated: list[Experience]
    metrics: dict[str, float] = field(default_factory=dict)


class Sampler:
    """Has the order's batches generated, and where some groups tell nothing, further prompts of their types."""

    def __init__(
        self,
        config: Config,
        order: Order,
        rows: UsableRows,
        loader: PromptLoader,
        rollout: RolloutPool,
        scorer: Scorer,
        warn: Callable[[str], None],
    ):
        self.config, self.loader, self.scorer, self.warn = config, loader, scorer, warn
        types = [rows.reward_types[kind] for kind in rows.reward_type]
        self.draws = PromptDraws(order.batch, types) if config.algo.dynamic_sampling else None
        self.planned = order
        self.pipeline = Pipeline(config, self.draws or order, loader, rollout, scorer)
        if warning := uncorrected(config):
            warn(warning)

    def sample(self, step: int, clock: Clock) -> Sampled:
        """The step's groups with rewards and references, in the order of their prompt ids."""
        with clock.phase("generate"):
            if not self.draws:
                self.pipeline.run_ahead(step)
            batch = self.pipeline.take(step)
        with clock.phase("reward"):
            generated = self.scorer.collect(batch.groups)
        sampled = self._refilled(step, batch.rows, generated, clock) if self.draws else Sampled(generated, generated)
        check_unscored(step, sampled.generated, self.config.reward.max_unscored_fraction)
        with clock.phase("reference"):
            return replace(sampled, batch=self.scorer.judged(sampled.batch, step))

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes what was generated ahead into `folder`; what else a continued run needs, as JSON."""
        ahead = self.pipeline.save(folder)
        state = {"usable_rows": len(self.loader.rows), "bad_rows": self.loader.found()} | ({"ahead": ahead} if ahead else {})
        return state | ({"draws": self.draws.state()} if self.draws else {})

    def restore(self, state: dict[str, Any], step: int, folder: Path) -> None:
        """Goes on from the checkpoint of `step`: what `save` returned, and wrote into `folder`.

        Raises UserError where the data has another number of usable rows than it had then.
        """
        now = len(self.loader.rows)
        before = state.get("usable_rows", now)
        if before != now:
            raise UserError(
                f"data.train={self.config.data.train} has {now} usable rows, and had {before} when {folder} was written: "
                "other rows would come next than in the run so far. Put the data back, or start anew with another run.name"
            )
        num_read = step
        if self.draws:
            self.draws.restore(state["draws"])
            num_read = self.draws.num_read
        self.loader.restore(state.get("bad_rows", []), map(self.planned.batch, range(1, num_read + 1)))
        self.pipeline.restore(step, state.get("ahead", {}), folder)

    def _refilled(self, step: int, rows: list[int], generated: list[Experience], clock: Clock) -> Sampled:
        """Draws further prompts, exactly as many as are missing of each type, `algo.max_refills` times at most."""
        groups, refills = InformativeGroups(self.draws.types(rows)), 0
        groups.add(generated)
        while (missing := groups.missing()) and refills < self.config.algo.max_refills:
            more = self.draws.refill(missing, taken=rows)
            if not more:
                break
            rows, refills = rows + more, refills + 1
            with clock.phase("generate"):
                pending = self.pipeline.generate(step, self.loader.load(more))
            with clock.phase("reward"):
                groups.add(self.scorer.collect(pending))
        self.pipeline.run_ahead(step)  # not before: refills would have to wait for it
        if missing:
            self.warn(
                f"step {step}: after {refills} refills (algo.max_refills {self.config.algo.max_refills}) "
                f"{len(missing)} groups whose samples differ in reward are still missing, by type: "
                f"{dict(Counter(missing))}; {len(groups.fill())} groups without a difference take their places"
            )
        return Sampled(groups.batch(), groups.generated, groups.metrics(refills))
