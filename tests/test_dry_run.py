"""dry_run plans for clusters that are not there: what fits, what does not, and why."""

from __future__ import annotations

import re

import pytest

from mixed_r1_ray.config_load import load_config
from mixed_r1_ray.dry_run import dry_run
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.main import main
from mixed_r1_ray.memory_plan import Load, judge
from mixed_r1_ray.scale.architecture import read_architecture
from mixed_r1_ray.scale.hardware import GIB
from mixed_r1_ray.scale.memory import footprints

ONE = [
    *("cluster.nodes=1", "cluster.gpus_per_node=1", "cluster.share_gpus=true"),
    *("rollout.num_workers=1", "learner.num_workers=1"),
]
EIGHT = ["cluster.nodes=1"]
SIXTY_FOUR = [
    *("cluster.nodes=8", "rollout.num_workers=24", "learner.num_workers=32", "reference.num_workers=8"),
    *("data.num_workers=32", "reward.num_workers=32", "rollout.prompts_per_step=1024"),
]


@pytest.fixture
def shown(monkeypatch, capsys):
    """What `dry_run` prints of a configuration, on a terminal that is wide enough for its tables."""
    monkeypatch.setenv("COLUMNS", "200")

    def shown(*words: str) -> str:
        dry_run(load_config(list(words)))
        return capsys.readouterr().out

    return shown


def seconds_of(text: str, phase: str) -> float:
    return float(re.search(rf"│ {phase} +│ ([0-9.]+)", text)[1])


def test_internvl_8b_does_not_fit_one_gpu_and_the_sum_says_why(capsys):
    with pytest.raises(UserError) as caught:
        dry_run(load_config(["conf=internvl_8b", *ONE]))
    # 7.94e9 parameters x 2 bytes; 7.64e9 trained x 2 and x 12 bytes
    assert str(caught.value).startswith(
        "GPU of learner while rollout + reference sleep: learner weights 14.8 + learner gradients 14.2 + "
        "learner optimizer 85.4 = 114.4 GiB, of 78.0 GiB"
    )
    assert "cannot fit" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["conf=internvl_2b"], ["conf=internvl_8b", "learner.offload=optimizer"]])
def test_what_fits_one_gpu_by_turns(shown, words):
    text = shown(*words, *ONE)
    assert "cannot fit" not in text and "may not fit" not in text and text.count("fits") == 4


def test_what_sleeps_lies_on_the_host():
    config = load_config(["conf=internvl_8b", *ONE])
    prints = footprints(config, read_architecture(config.model.path), 80 * GIB)
    weights, state = 2 * 7_944_373_760, 12 * 7_640_361_472  # AdamW's of what is trained; its gradients are dropped
    assert prints["rollout"].host["asleep"] == prints["reference"].host["asleep"] == weights
    assert prints["learner"].host["asleep"] == weights + state


def test_turns_are_a_phase_of_a_step_on_shared_gpus_alone(shown):
    text = shown("conf=internvl_2b", *ONE)
    assert seconds_of(text, "turns") > 1 and "host link" in text
    assert "turns" not in shown("conf=internvl_8b", *EIGHT)


def test_internvl_8b_fits_eight_gpus(shown):
    text = shown("conf=internvl_8b", *EIGHT)
    assert text.count("fits") == 4 and "not fit" not in text
    assert seconds_of(text, "learn") == pytest.approx(seconds_of(text, "generate"), rel=0.1)  # as the conf says


def test_internvl_8b_fits_sixty_four_gpus_and_makes_six_times_the_samples(shown):
    eight, many = shown("conf=internvl_8b", *EIGHT), shown("conf=internvl_8b", *SIXTY_FOUR)
    assert "not fit" not in many
    assert re.search(r"learner +│ 8 x 4 nodes", many) and re.search(r"rollout +│ 8 x 3 nodes", many)
    samples = [float(re.search(r"([0-9.]+) samples/s", text)[1]) for text in (eight, many)]
    assert 6 < samples[1] / samples[0] < 8


def test_a_cluster_that_is_too_small_is_refused_before_any_table(capsys):
    assert main(["conf=internvl_8b", "dry_run=true", "cluster.nodes=4", "cluster.gpus_per_node=1"]) == 1
    out, err = capsys.readouterr()
    assert "rollout 3 x 1 + learner 4 x 1 + reference 1 x 1 = 8 GPUs needed, 4 available" in err
    assert "Placement plan" not in out


def test_smaller_gpus_are_refused_with_their_size(capsys):
    assert main(["conf=internvl_8b", "dry_run=true", "cluster.nodes=1", "cluster.gpu_memory_gib=24"]) == 1
    assert "of 22.0 GiB" in capsys.readouterr().err


def test_an_unknown_model_gets_its_placement_alone(shown):
    text = shown("conf=internvl_8b", "model.path=someone/else", *EIGHT)
    assert "learner" in text and "the shape of someone/else is not known here" in text and "Step time" not in text


def test_an_engine_without_room_for_a_cache_is_refused():
    with pytest.raises(UserError, match="nothing is left for the KV cache; raise rollout.gpu_memory_fraction"):
        dry_run(load_config(["conf=internvl_8b", *EIGHT, "rollout.gpu_memory_fraction=0.2"]))


def test_what_may_not_fit_is_told_with_its_addition():
    load = Load("GPU of learner", {("learner", "weights"): 2**30, ("learner", "logits"): 2**31}, 2.0**31)
    assert judge([load]) == [
        "may not fit, at the most: GPU of learner: learner weights 1.0 + learner logits 2.0 = 3.0 GiB, of 2.0 GiB"
    ]
    assert judge([Load("host", load.parts, None)]) == []
    with pytest.raises(UserError, match="GPU of learner: learner weights 1.0 = 1.0 GiB, of 0.5 GiB"):
        judge([Load("GPU of learner", load.parts, 2.0**29)])
