"""A step's experiences: prompts drawn, answered and scored, and more of them until enough have something to tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mixed_r1_ray.clock import Clock
from mixed_r1_ray.config import Config
from mixed_r1_ray.data.draws import PromptDraws
from mixed_r1_ray.data.loader import PromptLoader
from mixed_r1_ray.data.order import Order
from mixed_r1_ray.data.reader import UsableRows
from mixed_r1_ray.dynamic_sampling import InformativeGroups
from mixed_r1_ray.experience import Experience, Scorer, check_unscored
from mixed_r1_ray.rollout.pool import RolloutPool
from mixed_r1_ray.types import Prompt, SamplingConfig


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a step learns from, and all that was generated for it: the same without dynamic sampling."""

    batch: list[Experience]
    generated: list[Experience]
    metrics: dict[str, float] = field(default_factory=dict)


class Sampler:
    """Draws prompts from the order, generates with the weights that the engines have, and scores."""

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
        self.config, self.loader, self.rollout, self.scorer, self.warn = config, loader, rollout, scorer, warn
        types = [rows.reward_types[kind] for kind in rows.reward_type]
        self.draws = PromptDraws(order.batch, types) if config.algo.dynamic_sampling else None
        self.planned, self.order = order, self.draws or order
        self.sampling = SamplingConfig(
            config.rollout.group_size, config.rollout.max_new_tokens, config.rollout.temperature
        )

    def sample(self, step: int, clock: Clock) -> Sampled:
        """The step's groups with rewards and references, in the order of their prompt ids."""
        rows = self.order.batch(step)
        with clock.phase("generate"):
            prompts = self.loader.load_batch(rows)
            self.loader.prefetch(self.order.batch(step + 1))
        generated = self._answered(step, prompts, clock)
        sampled = self._refilled(step, rows, generated, clock) if self.draws else Sampled(generated, generated)
        check_unscored(step, sampled.generated, self.config.reward.max_unscored_fraction)
        with clock.phase("reference"):
            self.scorer.await_references(sampled.batch, step)
        return sampled

    def probes(self, step: int, count: int) -> list[Prompt]:
        """Some of the prompts that the step will begin with."""
        return self.loader.load_batch(self.order.batch(step)[:count])

    def state(self) -> dict[str, Any]:
        """What of the draws, and of bad rows found, does not follow from the step; JSON."""
        return {"bad_rows": self.loader.found()} | ({"draws": self.draws.state()} if self.draws else {})

    def restore(self, state: dict[str, Any], step: int) -> None:
        """Goes on from the `state` that the checkpoint of `step` keeps."""
        num_read = step
        if self.draws:
            self.draws.restore(state["draws"])
            num_read = self.draws.num_read
        self.loader.restore(state.get("bad_rows", []), map(self.planned.batch, range(1, num_read + 1)))

    def _answered(self, step: int, prompts: Sequence[Prompt], clock: Clock) -> list[Experience]:
        with clock.phase("generate"):
            groups = self.rollout.generate(prompts, self.sampling, step)
            pending = self.scorer.submit_all(groups, progress=step / self.config.run.max_steps)
        with clock.phase("reward"):
            return self.scorer.collect(pending)

    def _refilled(self, step: int, rows: list[int], generated: list[Experience], clock: Clock) -> Sampled:
        """Draws further prompts, exactly as many as are missing of each type, `algo.max_refills` times at most."""
        groups, refills = InformativeGroups(self.draws.types(rows)), 0
        groups.add(generated)
        while (missing := groups.missing()) and refills < self.config.algo.max_refills:
            more = self.draws.refill(missing, taken=rows)
            if not more:
                break
            rows, refills = rows + more, refills + 1
            groups.add(self._answered(step, self.loader.load(more), clock))
        if missing:
            self.warn(
                f"step {step}: after {refills} refills (algo.max_refills {self.config.algo.max_refills}) "
                f"{len(missing)} groups whose samples differ in reward are still missing, by type: "
                f"{dict(Counter(missing))}; {len(groups.fill())} groups without a difference take their places"
            )
        return Sampled(groups.batch(), groups.generated, groups.metrics(refills))
