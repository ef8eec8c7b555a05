"""Mixed-Reward: every response scored by the reward that fits its task, format beside it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.rewards import bmas, chart, counting, iou, matching
from mixed_r1_ray.rewards.embeddings import EmbeddingTable
from mixed_r1_ray.rewards.format import format_score
from mixed_r1_ray.rewards.golds import several_golds
from mixed_r1_ray.rewards.math_process import MathVerifier, shared_verifier
from mixed_r1_ray.rewards.options import RewardOptions, nearest
from mixed_r1_ray.rewards.parse import GoldError, TaskScore, extract_answer
from mixed_r1_ray.rewards.sample import RewardRequest
from mixed_r1_ray.types import REWARD_TYPES, BoxFrame, RewardBreakdown


def score(
    reward_type: str,
    response: str,
    gold: str,
    *,
    question: str | None = None,
    choices: Sequence[str] | None = None,
    image_size: tuple[int, int] | None = None,
    box_frame: BoxFrame | None = None,
    embeddings: EmbeddingTable | None = None,
    **options,
) -> RewardBreakdown:
    """Scores one response. `options` are the fields of RewardOptions.

    Raises GoldError for a gold that cannot be read (and where the process died that decides on math),
    ValueError for an unknown reward type, TypeError for an unknown option, UserError for an open-ended answer
    without embeddings. Nothing in a response raises.
    """
    settings = RewardOptions.from_keywords(options)
    choices = None if choices is None else tuple(choices)
    request = RewardRequest(reward_type, response, gold, question, choices, image_size, box_frame)
    (breakdown,) = score_batch([request], embeddings=embeddings, options=settings)
    if breakdown.total is None:
        raise GoldError(breakdown.detail)
    return breakdown


def score_batch(
    requests: Sequence[RewardRequest],
    *,
    embeddings: EmbeddingTable | None = None,
    options: RewardOptions = RewardOptions(),
    verifier: MathVerifier | None = None,
) -> list[RewardBreakdown]:
    """One breakdown a request, in order. A gold that cannot be read leaves it unscored: None, and why.

    verifier: what decides on mathematics; None: one that all calls share.
    """
    breakdowns: list[RewardBreakdown | None] = [None] * len(requests)
    captions: dict[tuple[str, ...], list[tuple[int, str]]] = {}  # by gold
    maths: list[tuple[int, tuple[str, ...], str]] = []
    for place, request in enumerate(requests):
        try:
            gold = _parse_gold(request, verifier)
        except GoldError as error:
            breakdowns[place] = unscored(request, str(error))
            continue
        answer = extract_answer(request.response)
        if request.reward_type == "custom":
            breakdowns[place] = unscored(request, "reward type custom, but reward.custom names no function")
        elif answer is None:
            breakdowns[place] = joined(request, TaskScore(0.0, "no complete <answer>…</answer>"), options)
        elif request.reward_type == "open_ended":
            captions.setdefault(gold, []).append((place, answer))
        elif request.reward_type == "math":
            maths.append((place, gold, answer))
        else:
            breakdowns[place] = joined(request, _score_answer(answer, gold, request, options), options)
    for golds, members in captions.items():
        places, answers = zip(*members)
        for place, task in zip(places, _score_captions(answers, golds, embeddings, options)):
            breakdowns[place] = joined(requests[place], task, options)
    tasks = (verifier or shared_verifier()).score([pair for _, *pair in maths]) if maths else ()
    for (place, *_), task in zip(maths, tasks):
        breakdowns[place] = joined(requests[place], task, options)
    return breakdowns


def joined(request: RewardRequest, task: TaskScore | str, options: RewardOptions) -> RewardBreakdown:
    """The total of task and format; unscored where a text says why there is no task reward."""
    if isinstance(task, str):
        return unscored(request, task)
    form = format_score(request.response)
    total = options.task_weight * task.value + options.format_weight * form
    return RewardBreakdown(request.reward_type, total, task.value, form, task.detail)


def unscored(request: RewardRequest, reason: str) -> RewardBreakdown:
    """What could not be scored, which is not the same as 0."""
    return RewardBreakdown(request.reward_type, None, None, None, reason)


def validate_gold(
    reward_type: str,
    gold: str,
    choices: Sequence[str] | None = None,
    image_size: tuple[int, int] | None = None,
) -> None:
    """Raises GoldError, saying why, for a gold that this reward type cannot be scored against."""
    _parse_gold(
        RewardRequest(reward_type, "", gold, None, None if choices is None else tuple(choices), image_size)
    )


def _parse_gold(request: RewardRequest, verifier: MathVerifier | None = None):
    if request.reward_type not in REWARD_TYPES:
        raise ValueError(
            f"unknown reward type {request.reward_type!r}{nearest(str(request.reward_type), REWARD_TYPES)}"
        )
    if not isinstance(request.gold, str) or not request.gold.strip():
        raise GoldError(f"gold {request.gold!r} is empty, or no text (boxes are stored as JSON)")
    if request.box_frame is not None and request.image_size is None and request.reward_type == "iou":
        raise GoldError(
            "image_size is missing: boxes said in the model's own frame cannot be brought to pixels"
        )
    if request.reward_type == "math":
        return (verifier or shared_verifier()).check_gold(request.gold)
    size = None if request.image_size is None else tuple(request.image_size)
    choices = None if request.choices is None else tuple(request.choices)
    return _parse_cached(request.reward_type, request.gold, choices, request.question, size)


@lru_cache(maxsize=1024)  # a group shares its gold
def _parse_cached(reward_type: str, gold: str, choices, question, image_size):
    if reward_type == "matching":
        return matching.parse_gold(gold, choices, question)
    if reward_type == "chart":
        return tuple(chart.parse_gold(text, question) for text in several_golds(gold))
    if reward_type == "counting":
        return tuple(counting.parse_gold(text) for text in several_golds(gold))
    if reward_type == "iou":
        return iou.parse_gold(gold, image_size)
    return bmas.parse_gold(gold) if reward_type == "open_ended" else gold


def _score_answer(answer: str, gold, request: RewardRequest, options: RewardOptions) -> TaskScore:
    if request.reward_type == "matching":
        return matching.score_answer(answer, gold)
    if request.reward_type == "chart":
        return chart.score_any(answer, gold, options.chart_mode, options.chart_ordered)
    if request.reward_type == "counting":
        return counting.score_answer(answer, gold, options.counting_mode)
    return iou.score_answer(
        answer,
        gold,
        image_size=request.image_size,
        box_frame=request.box_frame,
        mode=options.iou_mode,
        threshold=options.iou_threshold,
        progress=options.progress,
    )


def _score_captions(answers, golds, embeddings: EmbeddingTable | None, options) -> list[TaskScore | str]:
    if embeddings is None:
        raise UserError(
            "an open_ended answer needs `embeddings`: EmbeddingTable.from_checkpoint(model folder)"
        )
    try:
        return bmas.score_answers(answers, golds, embeddings, options)
    except GoldError as error:
        return [str(error)] * len(answers)
