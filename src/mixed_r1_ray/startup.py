"""From a configuration to everything the loop works with, checked and ready."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from mixed_r1_ray.actors import Actors, await_ready
from mixed_r1_ray.checkpointing import Checkpointer
from mixed_r1_ray.config import Config
from mixed_r1_ray.data.batch_plan import make_order
from mixed_r1_ray.data.loader import PromptLoader
from mixed_r1_ray.data.worker import SplitInfo
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.evaluation import Evaluator
from mixed_r1_ray.experience import Scorer
from mixed_r1_ray.guard import Guard
from mixed_r1_ray.policy.group import LearnerGroup
from mixed_r1_ray.policy.reference_pool import ReferencePool
from mixed_r1_ray.quickstart import build_missing
from mixed_r1_ray.remote import fetch
from mixed_r1_ray.rewards.pool import RewardPool
from mixed_r1_ray.rollout.pool import RolloutPool
from mixed_r1_ray.runtime.journal import Journal
from mixed_r1_ray.runtime.run_dir import RunDir
from mixed_r1_ray.sampler import Sampler
from mixed_r1_ray.schedules import spent
from mixed_r1_ray.turns import Turns, no_turns
from mixed_r1_ray.weight_transfer import WeightTransfer, make_weight_transfer


@dataclass(frozen=True)
class Parts:
    """What the driver's loop holds: pools of actors and the pure objects between them."""

    sampler: Sampler
    train_data: PromptLoader
    rollout: RolloutPool
    learners: LearnerGroup
    references: ReferencePool
    transfer: WeightTransfer
    guard: Guard
    evaluator: Evaluator | None
    eval_pictures: Callable[[list[str]], dict[str, bytes]]
    checkpoints: Checkpointer
    turns: Turns
    first_step: int


def prepare_inputs(config: Config, journal: Journal) -> tuple[Config, dict[str, str]]:
    """Builds the tiny model and the synthetic data where the configuration asks for them.

    Returns the configuration with the model's real path, and the record files by split.
    """
    built = build_missing(config, journal.say)
    splits = {"train": built.train} | ({"eval": built.eval} if built.eval else {})
    return replace(config, model=replace(config.model, path=built.model)), splits


def start_parts(
    config: Config, actors: Actors, splits: dict[str, str], run_dir: RunDir, journal: Journal
) -> Parts:
    """Waits until all actors are ready and hands them over. Raises UserError naming what could not be started."""
    rows = {split: _describe(actors, split, config, journal) for split in splits}
    order = make_order(rows["train"].rows, config, journal.warn)
    if warning := spent(config):
        journal.warn(warning)
    turns = make_turns(actors, config)
    learners = LearnerGroup(actors.of("learner"), config, turns)
    journal.say("starting learners")
    journal.say(f"learners compute attention by {learners.start()}")
    await_ready(actors, config, journal.say)
    rollout, scorer = make_pools(actors, config, journal.warn, turns)
    loaders = {
        split: PromptLoader(
            actors.of("data"),
            split,
            config,
            rows[split].rows,
            rows[split].bad_rows,
            lambda bad: journal.warn(f"skipped: {bad}"),
        )
        for split in splits
    }
    evaluator = (
        Evaluator(config, loaders["eval"], rows["eval"].rows, rollout, scorer) if "eval" in splits else None
    )
    sampler = Sampler(config, order, rows["train"].rows, loaders["train"], rollout, scorer, journal.warn)
    checkpoints = Checkpointer(config, run_dir, learners, sampler, journal)
    return Parts(
        sampler=sampler,
        train_data=loaders["train"],
        rollout=rollout,
        learners=learners,
        references=scorer.references,
        transfer=make_weight_transfer(config, learners, rollout),
        guard=Guard.from_config(config),
        evaluator=evaluator,
        eval_pictures=_PictureSource(actors, "eval" in splits),
        checkpoints=checkpoints,
        turns=turns,
        first_step=checkpoints.restore() + 1,
    )


def make_turns(actors: Actors, config: Config) -> Turns:
    """Among the roles that share GPUs, if any do."""
    if not config.cluster.share_gpus:
        return no_turns()
    sharers = [role for role in ("rollout", "learner", "reference") if getattr(config, role).gpus_per_worker]
    return Turns({role: partial(actors.of, role) for role in sharers}, config.rollout.start_timeout_s)


def make_pools(
    actors: Actors, config: Config, warn: Callable[[str], None], turns: Turns | None = None
) -> tuple[RolloutPool, Scorer]:
    """What samples answers, and what scores them."""
    rewards = RewardPool.from_config(actors.of("reward"), config.reward, warn)
    references = ReferencePool(actors.of("reference"), config.reference.timeout_s, turns)
    rollout = RolloutPool(
        actors.of("rollout"),
        config.rollout.timeout_s,
        config.rollout.start_timeout_s,
        renew=partial(actors.replace, "rollout"),
        max_restarts=config.cluster.max_restarts,
        warn=warn,
        turns=turns,
    )
    return rollout, Scorer(rewards, references, warn)


def _describe(actors: Actors, split: str, config: Config, journal: Journal) -> SplitInfo:
    journal.say(f"reading {split} data")
    what, deadline_s = f"data workers reading the {split} split", config.data.timeout_s
    shards = fetch([worker.shards.remote(split) for worker in actors.of("data")], what=what, deadline_s=deadline_s)
    for number, seen in enumerate(shards):
        if seen != shards[0]:
            name, rows = next(iter(sorted(set(seen) ^ set(shards[0]))))
            raise UserError(
                f"data.{split}: data[0] and data[{number}] see different files, {name} with {rows} rows among them; put "
                "the data where every node finds the same"
            )
    info: SplitInfo = fetch(actors.of("data")[0].describe.remote(split), what=what, deadline_s=deadline_s)
    for bad in info.bad_rows:
        journal.warn(f"skipped: {bad}")
    return info


@dataclass(frozen=True)
class _PictureSource:
    """Encoded first pictures of held-out prompts by id, for the report."""

    actors: Actors
    evaluated: bool

    def __call__(self, prompt_ids: list[str]) -> dict[str, bytes]:
        if not self.evaluated:
            return {}
        answer = self.actors.of("data")[0].pictures.remote("eval", prompt_ids)
        return fetch(answer, what="data worker reading pictures for the report", deadline_s=60.0)
