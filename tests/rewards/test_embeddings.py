from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.rewards import EmbeddingTable, RewardRequest, score, score_batch

RESPONSE = "<think>x</think><answer>a red circle</answer>"


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "name",
    [
        "model.language_model.embed_tokens.weight",
        "language_model.model.embed_tokens.weight",
        "model.embed_tokens.weight",
        "language_model.embed_tokens.weight",
        "model.language_model.model.tok_embeddings.weight",
    ],
)
def test_rows_of_a_single_file(tmp_path, matrix, tokenizer, dtype, name):
    stored = torch.tensor(matrix).to(dtype)
    save_file({"lm_head.weight": torch.zeros(3, 4), name: stored}, tmp_path / "model.safetensors")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    table = EmbeddingTable.from_checkpoint(tmp_path)
    ids = np.array([3, 1, 3, 7])
    np.testing.assert_allclose(table.unit_rows(ids), unit(stored.float().numpy())[ids], rtol=1e-6)
    assert score("open_ended", RESPONSE, "a red circle", embeddings=table).task == 1.0


def test_only_the_shard_that_holds_the_matrix_is_opened(tmp_path, matrix):
    name = "model.language_model.embed_tokens.weight"
    save_file({name: torch.tensor(matrix)}, tmp_path / "model-00002-of-00002.safetensors")
    shards = {"lm_head.weight": "model-00001-of-00002.safetensors", name: "model-00002-of-00002.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    table = EmbeddingTable.from_checkpoint(tmp_path)
    np.testing.assert_allclose(table.unit_rows(np.array([5])), unit(matrix)[[5]], rtol=1e-6)


def test_only_rows_in_use_are_held(matrix, tokenizer):
    table = EmbeddingTable(np.tile(matrix, (500, 1)), tokenizer)
    for ids in ([1, 2], [2, 3], list(range(2000)), [7900, 1]):
        np.testing.assert_allclose(
            table.unit_rows(np.array(ids)), unit(matrix)[np.array(ids) % 16], rtol=1e-6
        )
    assert table.rows_held == 2001


def test_nothing_is_read_before_a_caption_is_scored(tmp_path):
    table = EmbeddingTable.from_checkpoint(tmp_path / "nowhere")
    assert score("matching", "<answer>yes</answer>", "yes", embeddings=table).task == 1.0


def test_a_checkpoint_without_its_parts_is_named(tmp_path, tokenizer, matrix):
    def scored():
        return score(
            "open_ended", RESPONSE, "a red circle", embeddings=EmbeddingTable.from_checkpoint(tmp_path)
        )

    with pytest.raises(UserError, match="tokenizer.json"):
        scored()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match=r"no \*.safetensors file"):
        scored()
    file = tmp_path / "model.safetensors"
    save_file({"lm_head.weight": torch.zeros(3, 4)}, file)
    with pytest.raises(UserError, match="embed_tokens.weight.*found none"):
        scored()
    save_file({"model.embed_tokens.weight": torch.tensor(matrix)}, file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="cut short"):
        scored()
    file.write_bytes(b"\x00")
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        scored()
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"model.embed_tokens.weight": "gone.safetensors"}})
    )
    with pytest.raises(UserError, match="gone.safetensors is missing"):
        scored()


def test_a_missing_table_is_an_error_of_the_caller():
    with pytest.raises(UserError, match="needs `embeddings`"):
        score_batch([RewardRequest("open_ended", RESPONSE, "a red circle")])


def test_rows_that_are_no_numbers_are_refused(tokenizer, matrix):
    matrix[2] = np.nan
    with pytest.raises(UserError, match="NaN"):
        score("open_ended", RESPONSE, "a red circle", embeddings=EmbeddingTable(matrix, tokenizer))
