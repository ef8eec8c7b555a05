from __future__ import annotations

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from mixed_r1_ray.rewards import EmbeddingTable

WORDS = "a red blue green circle square at the top left right and . ,".split()
VOCABULARY = {word: number for number, word in enumerate(["<unk>", *WORDS])}


@pytest.fixture
def tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True)])
    return tokenizer


@pytest.fixture
def matrix() -> np.ndarray:
    """(16, 24), one row a token of `tokenizer`."""
    return np.random.default_rng(0).standard_normal((len(VOCABULARY) + 1, 24)).astype(np.float32)


@pytest.fixture
def embeddings(matrix, tokenizer) -> EmbeddingTable:
    return EmbeddingTable(matrix, tokenizer)
