"""The open-ended reward: Bidirectional Max-Average Similarity of token embeddings (BMAS).

With unit rows E, response ids r and gold ids g: S_ij = E[r_i]·E[g_j], P = mean_i max_j S_ij,
R = mean_j max_i S_ij, BMAS = (P + R) / 2. The paper (Mixed-R1, arXiv 2505.24164) gives the idea and the name;
the arithmetic mean is a choice.
A maximum over a set needs distinct ids only; an id that stands on both sides has similarity 1, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixed_r1_ray.rewards.embeddings import EmbeddingTable
from mixed_r1_ray.rewards.golds import several_golds
from mixed_r1_ray.rewards.options import RewardOptions
from mixed_r1_ray.rewards.parse import GoldError, TaskScore

BMAS_MODES = ("mean", "f1")


@dataclass(frozen=True, slots=True)
class Similarity:
    """Precision: what of the response is in the gold; recall: of the gold in the response. Not clipped."""

    precision: float
    recall: float

    def joined(self, mode: str) -> float:
        """Their mean, arithmetic or harmonic (BERTScore's F1, Zhang et al. 2020), clipped to [0, 1]."""
        if mode == "mean":
            value = (self.precision + self.recall) / 2
        else:
            precision, recall = max(self.precision, 0.0), max(self.recall, 0.0)
            value = 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0
        return min(1.0, max(0.0, value))


def parse_gold(gold: str) -> tuple[str, ...]:
    """The gold text, or those of several_golds. Raises GoldError."""
    return tuple(text.strip() for text in several_golds(gold, list_is_several=True))


def score_answers(
    answers: Sequence[str], golds: tuple[str, ...], embeddings: EmbeddingTable, options: RewardOptions
) -> list[TaskScore]:
    """Scores answers that share golds; the best gold counts. Raises GoldError for one without tokens."""
    responses = [_tokens(answer, embeddings, options) for answer in answers]
    best: list[TaskScore] = []
    for gold in golds:
        gold_ids = _tokens(gold, embeddings, options)
        if not len(gold_ids):
            raise GoldError(f"gold {gold[:80]!r} has no tokens to compare")
        similarities = bmas_group(responses, gold_ids, embeddings, options.bmas_idf)
        scores = [_shaped(*pair, gold_ids, options) for pair in zip(similarities, responses)]
        best = [max(pair, key=lambda score: score.value) for pair in zip(best or scores, scores)]
    return best


def bmas_group(
    responses: Sequence[np.ndarray],
    gold: np.ndarray,
    embeddings: EmbeddingTable,
    idf: dict[int, float] | None = None,
) -> list[Similarity | None]:
    """Precision and recall of each response against one gold; None for a response without tokens.

    responses: token ids, int (T,) each. gold: token ids, int (T_gold,), not empty. idf: weight of a token id,
    1 for an id that has none. One matrix product for the whole group.
    """
    gold_ids, gold_weights = _weighted(gold, idf)
    sides = [_weighted(response, idf) for response in responses]
    ids = np.unique(np.concatenate([side for side, _ in sides] or [gold_ids[:0]]))
    if not len(ids):
        return [None] * len(responses)
    similarity = (
        embeddings.unit_rows(ids) @ embeddings.unit_rows(gold_ids).T
    )  # (distinct ids, distinct gold ids)
    _, same_row, same_column = np.intersect1d(ids, gold_ids, assume_unique=True, return_indices=True)
    similarity[same_row, same_column] = 1.0
    best_of_id = similarity.max(axis=1)
    results: list[Similarity | None] = []
    for side, weights in sides:
        if not len(side):
            results.append(None)
            continue
        rows = np.searchsorted(ids, side)
        recall = np.average(similarity[rows].max(axis=0), weights=gold_weights)
        results.append(Similarity(float(np.average(best_of_id[rows], weights=weights)), float(recall)))
    return results


def repetition(ids: np.ndarray, n: int = 3) -> float:
    """Share of n-grams that occurred before in the same text; 0 for a text shorter than n."""
    if len(ids) < n:
        return 0.0
    grams = np.lib.stride_tricks.sliding_window_view(ids, n)
    return 1.0 - len(np.unique(grams, axis=0)) / len(grams)


def _weighted(ids: np.ndarray, idf: dict[int, float] | None) -> tuple[np.ndarray, np.ndarray]:
    """Distinct ids and what each weighs: its count times its idf, or its count where all of that is 0."""
    distinct, counts = np.unique(ids, return_counts=True)
    if idf is None:
        return distinct, counts
    weights = counts * np.array([idf.get(int(token), 1.0) for token in distinct])
    return distinct, weights if weights.sum() > 0 else counts


def _tokens(text: str, embeddings: EmbeddingTable, options: RewardOptions) -> np.ndarray:
    ids = embeddings.encode(text)
    return ids[~embeddings.is_punctuation(ids)] if options.bmas_drop_punctuation else ids


def _shaped(
    similarity: Similarity | None, ids: np.ndarray, gold_ids: np.ndarray, options: RewardOptions
) -> TaskScore:
    if similarity is None:
        return TaskScore(0.0, "the answer has no tokens to compare")
    raw = similarity.joined(options.bmas_mode)
    repeated = repetition(ids)
    ratio = min(len(ids), len(gold_ids)) / max(len(ids), len(gold_ids))
    value = max(0.0, (raw - options.bmas_baseline) / (1.0 - options.bmas_baseline))
    value *= 1.0 - options.bmas_repetition_penalty * repeated
    value *= 1.0 - options.bmas_length_penalty * (1.0 - ratio)
    return TaskScore(
        value,
        f"BMAS {raw:.4f} (precision {similarity.precision:.4f}, recall {similarity.recall:.4f}), "
        f"{len(ids)} tokens for {len(gold_ids)}, repeated 3-grams {repeated:.2f}",
    )
