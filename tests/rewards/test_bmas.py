from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixed_r1_ray.rewards import EmbeddingTable, score
from mixed_r1_ray.rewards.bmas import bmas_group, repetition

ROWS = np.random.default_rng(1).standard_normal((40, 16)).astype(np.float32)
TABLE = EmbeddingTable(ROWS, tokenizer=None)
ids = st.lists(st.integers(0, 39), min_size=1, max_size=30).map(np.array)


def double_loop(response: np.ndarray, gold: np.ndarray) -> tuple[float, float]:
    """Precision and recall, token by token, in float64."""

    def cosine(i: int, j: int) -> float:
        a, b = ROWS[i].astype(float), ROWS[j].astype(float)
        return float(a @ b / np.sqrt((a @ a) * (b @ b)))

    precision = sum(max(cosine(i, j) for j in gold) for i in response) / len(response)
    recall = sum(max(cosine(i, j) for i in response) for j in gold) / len(gold)
    return precision, recall


@settings(deadline=None, max_examples=60)
@given(st.lists(ids, min_size=1, max_size=5), ids)
def test_a_group_equals_the_double_loop(responses, gold):
    for response, similarity in zip(responses, bmas_group(responses, gold, TABLE)):
        precision, recall = double_loop(response, gold)
        assert similarity.precision == pytest.approx(precision, abs=1e-6)
        assert similarity.recall == pytest.approx(recall, abs=1e-6)
        assert similarity.joined("mean") == pytest.approx(np.clip((precision + recall) / 2, 0, 1), abs=1e-6)


@settings(deadline=None, max_examples=60)
@given(ids, ids)
def test_symmetric(a, b):
    (forth,), (back,) = bmas_group([a], b, TABLE), bmas_group([b], a, TABLE)
    assert forth.joined("mean") == pytest.approx(back.joined("mean"), abs=1e-6)
    assert forth.precision == pytest.approx(back.recall, abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(ids, st.lists(ids, max_size=6), ids)
def test_independent_of_the_rest_of_the_group(response, others, gold):
    alone, together = bmas_group([response], gold, TABLE)[0], bmas_group([*others, response], gold, TABLE)[-1]
    assert alone.precision == pytest.approx(together.precision, abs=1e-6)
    assert alone.recall == pytest.approx(together.recall, abs=1e-6)


@given(ids)
def test_identical_text_scores_exactly_one(text):
    (similarity,) = bmas_group([text], text, TABLE)
    assert (similarity.precision, similarity.recall) == (1.0, 1.0)


def test_a_row_of_zeros_is_like_itself_and_nothing_else():
    table = EmbeddingTable(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]), tokenizer=None)
    (similarity,) = bmas_group([np.array([0, 1])], np.array([0, 2]), table)
    assert similarity.precision == pytest.approx(0.5)
    assert similarity.recall == pytest.approx(0.5)


def test_worked_example():
    """Rows at 0°, 60° and 90°: response {0°, 60°}, gold {0°, 90°}."""
    angles = np.radians([0, 60, 90])
    table = EmbeddingTable(np.stack([np.cos(angles), np.sin(angles)], 1) * [[1], [5], [0.1]], tokenizer=None)
    (similarity,) = bmas_group([np.array([0, 1])], np.array([0, 2]), table)
    assert similarity.precision == pytest.approx((1 + np.sqrt(3) / 2) / 2, abs=1e-6)
    assert similarity.recall == pytest.approx((1 + np.sqrt(3) / 2) / 2, abs=1e-6)


def test_idf_weighs_tokens():
    table = EmbeddingTable(np.eye(3), tokenizer=None)
    (similarity,) = bmas_group([np.array([0, 1])], np.array([0]), table, idf={0: 3.0, 1: 1.0})
    assert similarity.precision == pytest.approx(0.75)


def test_repetition():
    assert repetition(np.array([1, 2])) == 0.0
    assert repetition(np.array([1, 2, 3, 4])) == 0.0
    assert repetition(np.array([1, 1, 1, 1, 1])) == pytest.approx(2 / 3)


def task(answer: str, gold: str, embeddings: EmbeddingTable, **options) -> float:
    return score("open_ended", f"<answer>{answer}</answer>", gold, embeddings=embeddings, **options).task


def test_a_bag_of_the_golds_words_scores_one(embeddings):
    assert task("circle red a square blue and a .", "a red circle and a blue square .", embeddings) == 1.0


def test_special_tokens_do_not_count(embeddings):
    assert task("a red circle<|end|>", "a red circle", embeddings) == 1.0


def test_empty_answer_scores_zero(embeddings):
    assert task("", "a red circle", embeddings) == 0.0
    assert task("<|end|>", "a red circle", embeddings) == 0.0


def test_the_best_of_several_golds_counts(embeddings):
    assert task("a red circle", '["the blue square", "a red circle"]', embeddings) == 1.0


def test_half_a_surrogate_pair_does_not_raise(embeddings):
    assert 0.0 <= task("a red \ud800 circle", "a red circle", embeddings) <= 1.0


def test_options(embeddings):
    plain = task("a red circle .", "a red circle", embeddings)
    assert plain < 1.0
    assert task("a red circle .", "a red circle", embeddings, bmas_drop_punctuation=True) == 1.0
    assert task("a red circle .", "a red circle", embeddings, bmas_baseline=0.5) == pytest.approx(
        2 * plain - 1
    )
    assert task("a red circle .", "a red circle", embeddings, bmas_length_penalty=1.0) == pytest.approx(
        plain * 3 / 4
    )
    looping = task("red red red red red", "red", embeddings, bmas_repetition_penalty=1.0)
    assert looping == pytest.approx(1 / 3)


def test_f1_is_the_harmonic_mean(embeddings):
    (similarity,) = bmas_group([embeddings.encode("red circle")], embeddings.encode("red"), embeddings)
    p, r = similarity.precision, similarity.recall
    assert task("red circle", "red", embeddings, bmas_mode="f1") == pytest.approx(max(0, 2 * p * r / (p + r)))
