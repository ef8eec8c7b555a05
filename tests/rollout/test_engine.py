"""A real vLLM engine of each family against the trainer's forward: what engine_session.py measured must hold."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SESSION = Path(__file__).with_name("engine_session.py")
LIMIT = 1e-4  # nats, float32


@pytest.fixture(scope="module")
def measured(family, checkpoint, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("engine") / family
    shutil.copytree(checkpoint, folder)
    _advise_narrow_sampling(folder)
    result = folder.parent / "result.json"
    process = subprocess.run(
        [sys.executable, str(SESSION), str(folder), str(result)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    if process.returncode:
        pytest.fail(
            f"engine session ended with {process.returncode}:\n{process.stderr[-1500:]}", pytrace=False
        )
    return json.loads(result.read_text())


def _advise_narrow_sampling(folder: Path) -> None:
    """As real checkpoints do in generation_config.json; a policy must be sampled from as it is."""
    file = folder / "generation_config.json"
    advice = {"do_sample": True, "temperature": 0.1, "top_k": 1, "top_p": 0.01, "repetition_penalty": 1.5}
    file.write_text(json.dumps(json.loads(file.read_text()) | advice))


def test_log_probabilities_are_the_trainers(measured):
    assert measured["mismatch_initial"] <= LIMIT


def test_prompts_mixed_no_one_and_several_pictures_and_tiles(measured, family):
    """By hand: 16 a tile, at most 3 tiles and a thumbnail; 1 per 28 x 28 pixels, at most 6000 pixels."""
    tokens = {"internvl": [16, 0, 3 * 16 + 4 * 16, 3 * 16, 3 * 16], "qwen2_5_vl": [4, 0, 6 + 4, 3, 6]}[family]
    assert list(measured["image_tokens"].values()) == tokens


def test_stale_weights_show_as_a_mismatch_and_loading_them_heals_it(measured):
    assert measured["mismatch_stale"] > 0.01
    assert measured["mismatch_loaded"] <= LIMIT


def test_loaded_weights_change_what_is_said_and_the_version_it_carries(measured):
    assert measured["after_load"] != measured["initial"]
    assert measured["version_loaded"] == [3]
    assert measured["described"]["p0"][0]["versions"] == [0]


def test_a_load_that_misses_a_parameter_is_an_error_that_names_it(measured):
    assert len(measured["missing"]) >= 1
    assert "layers.2.mlp.down_proj" in measured["missing_error"]
    assert "version 4" in measured["missing_error"]
    assert measured["version_after_failure"] == 3


def test_weights_that_come_while_requests_hold_blocks_are_an_error_that_names_the_version(measured):
    assert "did not reset its prefix cache at weight version 4" in measured["stale_cache_error"]


def test_what_a_reader_broke_off_is_gone_from_the_engine(measured):
    """Else the weights that follow find blocks in use, and the next batch gets groups that it never asked for."""
    assert measured["after_break"] == measured["after_load"]


def test_an_engine_says_what_it_is(measured):
    """On a CPU; 0.25 GiB over 4 layers of keys and values, 4 heads of 32 float32 numbers each."""
    facts = measured["facts"]
    assert facts["device"] == "CPU" and facts["model_runner"] == "V1" and facts["attention"] == "CPU_ATTN"
    assert facts["vision_attention"] and facts["max_sequences"] == 256
    a_token = 4 * 2 * 4 * 32 * 4
    assert facts["cache_tokens"] == pytest.approx(0.25 * 2**30 / a_token, rel=0.01)


def test_a_part_is_loaded_alone_where_the_rest_stays_as_it_is(measured):
    assert measured["mismatch_language_stale"] > 100 * LIMIT
    assert measured["mismatch_language_loaded"] <= LIMIT


def test_a_part_that_comes_again_must_fill_what_it_filled_before(measured):
    assert "version 6 left 1 engine parameters unfilled" in measured["missing_part_error"]
    assert "layers.2.mlp.down_proj" in measured["missing_part_error"]


def test_parts_that_share_a_layer_are_an_error_that_names_what_would_be_noise(measured):
    """What the part of the biases lacks of q, k and v in each of the four layers, and what the other lacks."""
    assert "version 6 left 8 engine parameters unfilled" in measured["split_layers_error"]
    assert "layers.0.self_attn.qkv_proj.weight" in measured["split_layers_error"]


def test_adapters_reach_the_engine_merged_beside_weights_that_stay(measured):
    assert measured["mismatch_adapters_stale"] > 100 * LIMIT
    assert measured["mismatch_adapters_loaded"] <= LIMIT


@pytest.mark.parametrize("way", ["again", "reversed", "alone"])
def test_samples_do_not_depend_on_order_company_or_repetition(measured, way):
    assert measured[way] == measured["initial"]


def test_samples_of_a_group_and_of_steps_differ(measured):
    assert measured["next_step"] != measured["initial"]
    for samples in measured["initial"].values():
        assert len({tuple(sample) for sample in samples}) > 1


def test_greedy_answers_depend_on_weights_alone(measured):
    assert measured["greedy"] == measured["greedy_next_step"]
    assert {len(samples) for samples in measured["greedy"].values()} == {1}


def test_media_tokens_are_never_said_even_where_the_model_wants_nothing_else(measured):
    assert measured["media_share_without_ban"] > 0.5
    said = {
        token
        for way in ("initial", "after_load", "media_raised", "greedy")
        for samples in measured[way].values()
        for sample in samples
        for token in sample
    }
    assert not said & set(measured["banned"])
    assert measured["mismatch_media_raised"] <= LIMIT


def test_groups_are_complete_ordered_and_say_whether_they_ended(measured):
    for samples in measured["described"].values():
        assert [sample["sample_index"] for sample in samples] == [0, 1, 2, 3]
        for sample in samples:
            assert sample["shapes"] == [[sample["length"]]] * 2
            assert sample["finished"] == (sample["last_token"] == measured["eos"])
            assert sample["finished"] or sample["length"] == 16
            assert "<|end|>" not in sample["text"]
