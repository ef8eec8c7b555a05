"""From finished groups to what a step learns from: rewards, reference log-probabilities, advantages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from operator import mul
from statistics import fmean

from ray import ObjectRef

from mixed_r1_ray.algo.advantages import (
    decoupled_advantages,
    group_advantages,
    leave_one_out_advantages,
    whitened_advantages,
)
from mixed_r1_ray.algo.overlong import soft_overlong_penalty
from mixed_r1_ray.config import Config
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.policy.reference_pool import Judged, ReferencePool
from mixed_r1_ray.remote import fetch
from mixed_r1_ray.rewards.pool import PendingScore, RewardPool
from mixed_r1_ray.rewards.unscored import Unscored, UnscoredWarnings, count_by_source, find_unscored
from mixed_r1_ray.rollout.pool import FinishedGroup
from mixed_r1_ray.runtime.metrics import ScoredGroup
from mixed_r1_ray.runtime.rollout_log import RolloutRow
from mixed_r1_ray.types import BoxFrame, Group, GroupInfo, Prompt, RewardBreakdown, TrainBatch, TrainGroup


@dataclass(frozen=True, slots=True)
class Experience:
    """A group with all that is known of it. Tokens and pixels stay behind references."""

    prompt: Prompt
    info: GroupInfo
    group: ObjectRef
    rewards: tuple[RewardBreakdown, ...]
    reference: Judged | None

    def scored(self) -> ScoredGroup:
        """The part that metrics are made of."""
        prompt, info = self.prompt, self.info
        return ScoredGroup(
            prompt.reward_type, prompt.source, self.rewards, info.response_lengths, info.finished
        )

    def unscored(self) -> list[Unscored]:
        """Its samples that have no reward."""
        return find_unscored(self.prompt.prompt_id, self.prompt.source, self.rewards)


@dataclass(frozen=True, slots=True)
class PendingExperience:
    """A finished group whose reward and reference are under way."""

    finished: FinishedGroup
    score: PendingScore
    reference: Judged | None


class Scorer:
    """Sends each group to the rewards and, if there is one, to the reference, the moment it is finished.

    A reference that shares the engines' GPUs is asked when the step's groups are all there.
    """

    def __init__(self, rewards: RewardPool, references: ReferencePool, warn: Callable[[str], None]):
        self.rewards, self.references = rewards, references
        self.unscored_warnings = UnscoredWarnings(warn)

    def submit_all(
        self, groups: Iterable[FinishedGroup], progress: float = 0.0, with_reference: bool = True
    ) -> list[PendingExperience]:
        """Consumes the stream of groups to its end; scoring runs meanwhile."""
        return [self.submit(finished, progress, with_reference) for finished in groups]

    def submit(
        self, finished: FinishedGroup, progress: float = 0.0, with_reference: bool = True
    ) -> PendingExperience:
        """Starts the scoring of one group; returns at once."""
        prompt, num_samples = finished.prompt, len(finished.info.response_lengths)
        score = self.rewards.submit(prompt, finished.group, num_samples, progress)
        reference = None
        if with_reference and self.references and self.references.at_once:
            reference = self.references.ask(prompt.inputs, finished.group)
        return PendingExperience(finished, score, reference)

    def advance(self) -> None:
        """Keeps the reward workers busy; does not wait."""
        self.rewards.advance()

    def collect(self, pending: Sequence[PendingExperience]) -> list[Experience]:
        """The groups with their rewards, in the order of their prompt ids, whichever engine was faster."""
        experiences = [
            Experience(
                part.finished.prompt,
                part.finished.info,
                part.finished.group,
                self.rewards.collect(part.score),
                part.reference,
            )
            for part in pending
        ]
        experiences.sort(key=lambda experience: experience.prompt.prompt_id)
        self.unscored_warnings.add(sample for experience in experiences for sample in experience.unscored())
        return experiences

    def judged(self, experiences: Sequence[Experience], step: int) -> list[Experience]:
        """The same, where there is a reference with its log-probabilities, when all of them are made."""
        if not self.references:
            return list(experiences)
        experiences = [
            one if one.reference else replace(one, reference=self.references.ask(one.prompt.inputs, one.group))
            for one in experiences
        ]
        self.references.wait([one.reference for one in experiences], f"reference judging step {step}")
        return experiences


def check_unscored(step: int, experiences: Sequence[Experience], allowed: float) -> None:
    """Raises UserError where more than `allowed` of the step's samples could not be scored."""
    unscored = [sample for experience in experiences for sample in experience.unscored()]
    total = sum(len(experience.rewards) for experience in experiences)
    if len(unscored) > allowed * total:
        raise UserError(
            f"step {step}: {len(unscored)} of {total} samples could not be scored (reward.max_unscored_fraction "
            f"allows {allowed:.0%}); by source: {count_by_source(unscored)}; the first one: {unscored[0]}"
        )


def make_batch(step: int, experiences: Sequence[Experience], config: Config) -> TrainBatch:
    """What the learners take, advantages included. Raises UserError if there is nothing to learn."""
    advantages = _advantages(experiences, config)
    if config.algo.mask_truncated:
        advantages = _without_truncated(experiences, advantages)
    groups = [
        TrainGroup(
            prompt_id=experience.prompt.prompt_id,
            num_prompt_tokens=experience.prompt.num_tokens,
            response_lengths=experience.info.response_lengths,
            advantages=group,
            inputs=experience.prompt.inputs,
            group=experience.group,
            reference_logprobs=experience.reference and experience.reference.logprobs,
        )
        for experience, group in zip(experiences, advantages, strict=True)
    ]
    batch = TrainBatch.of(step, groups)
    if not batch.num_samples:
        raise UserError(
            f"step {step}: none of {len(groups)} groups has a scored sample to learn from; the warnings "
            "(warnings.jsonl) say what was not scored and why" + _truncation_hint(experiences, config)
        )
    return batch


def staleness_metrics(step: int, experiences: Sequence[Experience]) -> dict[str, float]:
    """How many versions the weights that made the trained tokens were behind the policy: at most, and a token's mean."""
    behind = [step - 1 - experience.info.oldest_version for experience in experiences]
    tokens = [sum(experience.info.response_lengths) for experience in experiences]
    mean = sum(map(mul, behind, tokens)) / sum(tokens)
    return {"staleness/max": max(behind), "staleness/mean": mean}


def overlong_metrics(experiences: Sequence[Experience], config: Config) -> dict[str, float]:
    """The mean soft overlong penalty, which the other reward metrics leave out; empty without one."""
    if not config.algo.overlong_buffer:
        return {}
    penalties = [penalty for group in _overlong_penalties(experiences, config) for penalty in group]
    return {"reward/overlong_penalty": config.algo.overlong_penalty_factor * fmean(penalties)}


def _advantages(experiences: Sequence[Experience], config: Config) -> list[tuple[float | None, ...]]:
    algo, reward = config.algo, config.reward
    penalties = _overlong_penalties(experiences, config) if algo.overlong_buffer else None
    if algo.multi_objective_aggregation == "normalize_then_sum":
        kinds = [(reward.task_weight, _rewards(experiences, "task"))]
        kinds.append((reward.format_weight, _rewards(experiences, "format")))
        if penalties is not None:  # GDPO: one more kind, normalised by itself (choice)
            kinds.append((algo.overlong_penalty_factor, penalties))
        return decoupled_advantages(kinds, algo.std_floor)
    totals = _rewards(experiences, "total")
    if penalties is not None:
        factor = algo.overlong_penalty_factor
        totals = [_penalised(*group, factor) for group in zip(totals, penalties, strict=True)]
    if algo.advantage_estimator == "rloo":
        return leave_one_out_advantages(totals)
    if algo.advantage_estimator == "reinforce_plus_plus_baseline":
        lengths = [experience.info.response_lengths for experience in experiences]
        return whitened_advantages(totals, lengths, algo.std_floor)
    scale = "none" if algo.advantage_estimator == "dr_grpo" else algo.scale_rewards
    return group_advantages(totals, scale, algo.std_floor)


def _rewards(experiences: Sequence[Experience], part: str) -> list[tuple[float | None, ...]]:
    return [tuple(getattr(one, part) for one in experience.rewards) for experience in experiences]


def _overlong_penalties(experiences: Sequence[Experience], config: Config) -> list[tuple[float, ...]]:
    limit, buffer = config.rollout.max_new_tokens, config.algo.overlong_buffer
    return [
        tuple(soft_overlong_penalty(length, limit, buffer) for length in experience.info.response_lengths)
        for experience in experiences
    ]


def _penalised(
    rewards: Sequence[float | None], penalties: Sequence[float], factor: float
) -> tuple[float | None, ...]:
    pairs = zip(rewards, penalties, strict=True)
    return tuple(None if reward is None else reward + factor * penalty for reward, penalty in pairs)


def _without_truncated(
    experiences: Sequence[Experience], advantages: Sequence[Sequence[float | None]]
) -> list[tuple[float | None, ...]]:
    """None for what was cut, out of loss and denominators. Its reward stays in the group's mean (as in TRL)."""
    return [
        tuple(value if done else None for value, done in zip(group, experience.info.finished, strict=True))
        for experience, group in zip(experiences, advantages, strict=True)
    ]


def _truncation_hint(experiences: Sequence[Experience], config: Config) -> str:
    cut = sum(not done for experience in experiences for done in experience.info.finished)
    if not config.algo.mask_truncated or not cut:
        return ""
    total = sum(len(experience.info.finished) for experience in experiences)
    return (
        f"; algo.mask_truncated leaves out {cut} of {total} responses, cut at rollout.max_new_tokens "
        f"{config.rollout.max_new_tokens}: raise that, or set the first to false"
    )


def rollout_rows(experiences: Sequence[Experience], batch: TrainBatch) -> list[RolloutRow]:
    """The step's responses with what they earned, for people to read."""
    groups: list[Group] = fetch(
        [experience.group for experience in experiences],
        what="responses for the rollout log",
        deadline_s=60.0,
    )
    return [
        RolloutRow(
            prompt_id=experience.prompt.prompt_id,
            source=experience.prompt.source,
            reward_type=experience.prompt.reward_type,
            question=experience.prompt.question,
            answer=experience.prompt.answer,
            sample_index=rollout.sample_index,
            response=rollout.text,
            reward_total=reward.total,
            reward_task=reward.task,
            reward_format=reward.format,
            reward_detail=reward.detail,
            advantage=advantage,
            weight_version_oldest=int(rollout.weight_versions.min()),
            weight_version_newest=int(rollout.weight_versions.max()),
            prompt_tokens=experience.prompt.num_tokens,
            response_tokens=len(rollout.token_ids),
            finished=rollout.finished,
            choices=experience.prompt.choices,
            image_size=experience.prompt.image_sizes[0] if experience.prompt.image_sizes else None,
            box_frame=as_pair(experience.prompt.box_frame),
        )
        for experience, trained, group in zip(experiences, batch.groups, groups, strict=True)
        for rollout, reward, advantage in zip(
            group.rollouts, experience.rewards, trained.advantages, strict=True
        )
    ]


def as_pair(frame: BoxFrame | None) -> tuple[float, float] | None:
    """(width, height), as files hold it."""
    return None if frame is None else (frame.width, frame.height)
