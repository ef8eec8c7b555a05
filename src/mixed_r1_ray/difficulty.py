"""How hard records are for a model: some answers to each, by the rollout and reward actors of training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import fmean, pstdev

import pyarrow as pa

from mixed_r1_ray import rewards
from mixed_r1_ray.actors import await_ready, create_actors
from mixed_r1_ray.cluster import connected
from mixed_r1_ray.config import TINY, Config
from mixed_r1_ray.data.engine.chunks import ANSWERED, Chunk
from mixed_r1_ray.data.engine.worker import ChunkLoader, ChunkWorker
from mixed_r1_ray.data.reader import BadRow
from mixed_r1_ray.data.shards import ShardWriter, file_fingerprint, fingerprint
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.experience import Experience, Scorer
from mixed_r1_ray.quickstart import build_model
from mixed_r1_ray.rollout import sampling as sampling_rules
from mixed_r1_ray.rollout.pool import RolloutPool
from mixed_r1_ray.startup import make_pools
from mixed_r1_ray.types import Prompt, SamplingConfig

ROLES = ("data", "rollout", "reward")  # no learner, no reference
SEED_STEP = 0  # every record is asked once: its seed depends on the run's seed and its id alone


def answering(config: Config, num_samples: int) -> str:
    """Fingerprint of all that answers and their rewards depend on, but for the records themselves."""
    model, rollout = Path(config.model.path), config.rollout
    weights = sorted(model.iterdir()) if model.is_dir() else []
    built = config.tiny if config.model.path.startswith(TINY) else None
    sampling = num_samples, rollout.temperature, rollout.max_new_tokens, config.run.seed
    prompt = config.data.template, config.data.system
    rules = [*sorted(Path(rewards.__file__).parent.glob("*.py")), Path(sampling_rules.__file__), Path(__file__)]
    return fingerprint(
        config.model,
        built,
        [file_fingerprint(path) for path in weights if path.is_file()],
        sampling,
        prompt,
        config.reward,
        fingerprint(*(path.read_bytes() for path in rules)),
    )


def answer_chunks(
    config: Config,
    chunks: Sequence[Chunk],
    num_samples: int,
    say: Callable[[str], None],
    count: Callable[[int, int], None],
) -> None:
    """Writes the answers of every chunk that is not finished; starts nothing where all are.

    count: told of records done and in all. Raises UserError for what stops a run too: a model that does not load,
    actors that die, a chunk of which no answer can be scored.
    """
    total = sum(len(chunk.rows) for chunk in chunks)
    waiting = [chunk for chunk in chunks if not chunk.finished()]
    done = total - sum(len(chunk.rows) for chunk in waiting)
    if not waiting:
        return
    with ExitStack() as stack:
        placement = stack.enter_context(connected(config, say, ROLES))
        model = build_model(config, say)
        config = replace(config, model=replace(config.model, path=model))
        actors = create_actors(config, placement, ChunkWorker)
        await_ready(actors, config, say)
        rollout, scorer = make_pools(actors, config, say)
        loader = ChunkLoader(actors.of("data"), config.data.timeout_s)
        sampling = SamplingConfig(num_samples, config.rollout.max_new_tokens, config.rollout.temperature)
        count(done, total)
        for chunk, following in zip(waiting, [*waiting[1:], None], strict=True):
            prompts = loader.load(chunk)
            if following is not None:
                loader.prefetch(following)
            write_answers(chunk, prompts, answer(prompts, rollout, scorer, sampling))
            done += len(chunk.rows)
            count(done, total)


def answer(
    prompts: Sequence[Prompt | BadRow], rollout: RolloutPool, scorer: Scorer, sampling: SamplingConfig
) -> list[Experience]:
    """The scored answers of all that can be asked."""
    asked = [prompt for prompt in prompts if isinstance(prompt, Prompt)]
    groups = rollout.generate(asked, sampling, SEED_STEP)
    return scorer.collect(scorer.submit_all(groups, with_reference=False))


def write_answers(chunk: Chunk, prompts: Sequence[Prompt | BadRow], answers: Sequence[Experience]) -> None:
    """The chunk's shard. Raises UserError where no answer at all could be scored: something else is wrong then."""
    by_id = {experience.prompt.prompt_id: experience for experience in answers}
    unscored = [sample for experience in answers for sample in experience.unscored()]
    if answers and len(unscored) == sum(len(experience.rewards) for experience in answers):
        raise UserError(
            f"{chunk.file.path.name}, from row {chunk.rows[0]}: none of {len(unscored)} answers could be scored; the "
            f"first one: {unscored[0]}. Nothing of these {len(chunk.rows)} rows was kept"
        )
    rows = [
        {"row": int(row)} | (_unasked(prompt) if isinstance(prompt, BadRow) else _answered(by_id[prompt.prompt_id]))
        for row, prompt in zip(chunk.rows, prompts, strict=True)
    ]
    with ShardWriter(chunk.shard, chunk.made_of, ANSWERED) as writer:
        writer.add_table(pa.Table.from_pylist(rows, schema=ANSWERED))


def _answered(experience: Experience) -> dict:
    prompt, tasks = experience.prompt, [reward.task for reward in experience.rewards]
    scored = [task for task in tasks if task is not None]
    details = [reward.detail for reward in experience.rewards if reward.task is None]
    return {
        "id": prompt.prompt_id,
        "source": prompt.source,
        "reward_type": prompt.reward_type,
        "rewards": tasks,
        "mean": fmean(scored) if scored else None,
        "std": pstdev(scored) if scored else None,
        "lengths": list(experience.info.response_lengths),
        "unscored": len(details),
        "detail": details[0] if details else None,
        "asked": True,
    }


def _unasked(bad: BadRow) -> dict:
    return {"rewards": [], "lengths": [], "unscored": 0, "detail": f"{bad.field}: {bad.reason}", "asked": False}
