"""dry_run plans for clusters that are not there: what fits, what does not, and why; and looks where a run looks."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixed_r1_ray.config_load import load_config
from mixed_r1_ray.dry_run import dry_run
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.main import main
from mixed_r1_ray.memory_plan import Load, judge
from mixed_r1_ray.runtime.run_dir import open_run_dir
from mixed_r1_ray.scale.architecture import read_architecture
from mixed_r1_ray.scale.hardware import GIB
from mixed_r1_ray.scale.memory import footprints
from mixed_r1_ray.scale.published import PUBLISHED

ONE = [
    *("cluster.nodes=1", "cluster.gpus_per_node=1", "cluster.share_gpus=true"),
    *("rollout.num_workers=1", "learner.num_workers=1"),
]
EIGHT = ["cluster.nodes=1"]
SIXTY_FOUR = [
    *("cluster.nodes=8", "rollout.num_workers=24", "learner.num_workers=32", "reference.num_workers=8"),
    *("data.num_workers=32", "reward.num_workers=32", "rollout.prompts_per_step=1024"),
]


OURS = ["data.train=synthetic", "data.eval=synthetic"]  # which a run makes itself


@pytest.fixture(autouse=True)
def piped(monkeypatch, tmp_path):
    """No terminal, no cluster, an empty folder and hub cache."""
    for name in ("COLUMNS", "RAY_ADDRESS", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def shown(capsys):
    """What `dry_run` prints of a configuration whose data a run makes itself."""

    def shown(*words: str) -> str:
        dry_run(load_config([*words[:1], *OURS, *words[1:]]))
        return capsys.readouterr().out

    return shown


@pytest.fixture
def refused(capsys):
    """What speaks against a run, by its dry run, whose exit code is 1."""

    def refused(*words: str) -> str:
        assert main([words[0], "dry_run=true", *words[1:]]) == 1
        return capsys.readouterr().err

    return refused


def seconds_of(text: str, phase: str) -> float:
    return float(re.search(rf"│ {phase} +│ +([0-9.]+)", text)[1])


def test_internvl_8b_does_not_fit_one_gpu_and_the_sum_says_why(capsys):
    with pytest.raises(UserError) as caught:
        dry_run(load_config(["conf=internvl_8b", *OURS, *ONE]))
    # 7.94e9 parameters x 2 bytes; 7.64e9 trained x 4 and x 12 bytes
    assert str(caught.value).startswith(
        "GPU of learner while rollout + reference sleep: learner weights 14.8 + learner gradients 28.5 + "
        "learner optimizer 85.4 = 128.6 GiB, of 78.0 GiB"
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
    assert "not fit" not in many and "idle" not in many
    assert re.search(r"node \d to \d │ learner +│ +8 ", many) and re.search(r"node \d to \d │ rollout +│ +8 ", many)
    assert "1024 samples" in eight and "8192 samples" in many
    assert 6 < 8 * seconds_of(eight, "step") / seconds_of(many, "step") < 8


def test_a_cluster_that_is_too_small_is_refused_before_any_table(capsys):
    assert main(["conf=internvl_8b", *OURS, "dry_run=true", "cluster.nodes=4", "cluster.gpus_per_node=1"]) == 1
    out, err = capsys.readouterr()
    assert "rollout 3 x 1 + learner 4 x 1 + reference 1 x 1 = 8 GPUs needed, 4 available" in err
    assert "Placement plan" not in out


def test_smaller_gpus_are_refused_with_their_size(capsys):
    assert main(["conf=internvl_8b", *OURS, "dry_run=true", "cluster.nodes=1", "cluster.gpu_memory_gib=24"]) == 1
    assert "of 22.0 GiB" in capsys.readouterr().err


def a_checkpoint(folder: Path, config: dict) -> str:
    """One that a run would load, but for what its config.json says; its only weight is small."""
    from safetensors.numpy import save_file

    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"weight": np.zeros(4, np.float32)}, folder / "model.safetensors")
    return str(folder)


MIXTURE = PUBLISHED["OpenGVLab/InternVL3-8B-hf"] | {"text_config": {"model_type": "qwen3_moe", "num_experts": 128}}


@pytest.mark.parametrize("config", [MIXTURE, {"model_type": "qwen2_5_vl"}, MIXTURE | {"vision_config": "large"}])
def test_a_model_whose_shape_is_not_known_gets_all_of_the_plan_that_needs_none(shown, tmp_path, config):
    text = shown("conf=internvl_8b", f"model.path={a_checkpoint(tmp_path / 'odd', config)}", "cluster.nodes=2")
    assert "Placement plan" in text and "8 of 16 GPUs stay idle" in text
    assert "memory and time not estimated: " in text and "Step time" not in text


def test_a_name_on_the_hub_is_planned_for_without_a_network(shown):
    text = shown("conf=internvl_8b", "model.path=someone/else", *EIGHT)
    assert "learner" in text and "memory and time not estimated: someone/else" in text.replace("\n", " ")
    assert "a run would download it" in text.replace("\n", " ")
    assert "Step time" in shown("conf=internvl_8b", *EIGHT)


def test_a_name_on_the_hub_is_looked_up_in_the_cache_and_nowhere_else(refused, monkeypatch, tmp_path):
    words = ["conf=internvl_8b", *OURS, *EIGHT, "model.path=someone/else"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "not in the hub's cache here, and HF_HUB_OFFLINE forbids a download" in refused(*words)
    cached = tmp_path / "hub" / "models--someone--else"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("abc")
    (cached / "snapshots" / "abc").mkdir(parents=True)
    (cached / "snapshots" / "abc" / "config.json").write_text('{"model_type": "llava"}')
    assert "names the model type 'llava'" in refused(*words)


def test_a_family_that_a_run_refuses_is_refused_in_words(refused, tmp_path):
    said = refused("conf=internvl_8b", *OURS, *EIGHT, f"model.path={a_checkpoint(tmp_path / 'm', {'model_type': 'llava'})}")
    assert "names the model type 'llava'; families that load are internvl, qwen2_5_vl" in said
    assert "Error(" not in said and "[" not in said and "{" not in said


def test_all_that_a_run_would_be_refused_for_is_told_at_once_and_nothing_is_touched(refused, tmp_path, capsys):
    function = tmp_path / "mine.py"
    function.write_text("def score(sample):\n    return 1.0\n")
    before = sorted(tmp_path.rglob("*"))
    words = ["data.train=no.parquet", "data.eval=/no/folder", "model.path=/no/model", f"reward.custom={function}:scores"]
    said = refused("conf=internvl_8b", *EIGHT, *words, "run.dir=new/runs")
    for problem in (
        "data.train=no.parquet: there is no such file",
        "data.eval=/no/folder: there is no such file",
        "model.path=/no/model: there is no such folder",
        f"reward.custom={function}:scores",
    ):
        assert problem in said
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_is_refused_by_the_same_words_before_it_starts_anything(refused, tmp_path):
    from mixed_r1_ray.driver import run

    words = ["conf=quickstart", "cluster.num_cpus=2", "data.train=no.parquet", "model.path=/no/model"]
    with pytest.raises(UserError) as caught:
        run(load_config(words))
    assert refused(*words) == f"error: {caught.value}\n"
    assert list(Path.cwd().iterdir()) == []


def test_a_file_that_is_no_parquet_and_one_without_the_columns_are_told(refused):
    Path("text.parquet").write_text("a,b\n")
    pq.write_table(pa.table({"question": ["what?"]}), "bare.parquet")
    said = refused("conf=quickstart", "cluster.num_cpus=2", "data.train=text.parquet", "data.eval=bare.parquet")
    assert "data.train=" in said and "text.parquet: is not a readable Parquet file" in said
    assert "data.eval=" in said and "bare.parquet: misses the column(s)" in said


def no_config(folder):
    (folder / "config.json").unlink()


def config_cut_short(folder):
    (folder / "config.json").write_text("{")


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def weights_cut_short(folder):
    os.truncate(folder / "model.safetensors", (folder / "model.safetensors").stat().st_size - 100)


def a_shard_missing(folder):
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_config, "holds no config.json"),
        (config_cut_short, "its config.json cannot be read as JSON"),
        (no_weights, "holds no weights"),
        (weights_cut_short, "model.safetensors cannot be read"),
        (a_shard_missing, "1 of 2 files of its weights are missing: model-2.safetensors"),
    ],
)
def test_a_checkpoint_that_would_not_load_is_told_why(refused, tiny_checkpoints, tmp_path, spoil, said):
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoints["internvl"], folder)
    words = ["conf=quickstart", "cluster.num_cpus=2", f"model.path={folder}"]
    assert main([*words, "dry_run=true"]) == 0
    spoil(folder)
    assert f"model.path={folder}: " in (error := refused(*words)) and said in error


def test_a_run_folder_that_is_taken_is_told(refused):
    config = load_config(["conf=quickstart"])
    words = ["conf=quickstart", "cluster.num_cpus=2"]
    with open_run_dir(config) as run_dir:
        assert f"in use by process {os.getpid()}" in refused(*words)
        run_dir.metrics_file.write_text('{"step": 1}\n')
    before = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")}
    assert "already holds a run" in refused(*words)
    assert "run.seed: 0 -> 5" in refused(*words, "run.resume=auto", "run.seed=5")
    assert main([*words, "run.resume=auto", "dry_run=true"]) == main([*words, "run.resume=overwrite", "dry_run=true"]) == 0
    assert {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")} == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["conf=internvl_8b", "cluster.nodes=2"],
            "8 of 16 GPUs stay idle (8 on node 1); to use them raise rollout.num_workers (3 now) or learner.num_workers "
            "(4 now) or reference.num_workers (1 now), for example rollout.num_workers=6 learner.num_workers=8 "
            "reference.num_workers=2",
        ),
        (
            ["conf=internvl_8b", "cluster.nodes=3", "cluster.gpus_per_node=4"],
            "4 of 12 GPUs stay idle (4 on node 2)",
        ),
        (["conf=internvl_8b", "cluster.nodes=4"], "24 of 32 GPUs stay idle (8 on each of 3 nodes (node 1 to node 3))"),
        (
            ["conf=debug", "cluster.nodes=1"],
            "for example rollout.num_workers=8 learner.num_workers=8 reference.num_workers=8",
        ),
        (["conf=quickstart", "cluster.nodes=1"], "8 of 8 GPUs stay idle (8 on node 0); to use them raise rollout.gpus"),
    ],
)
def test_gpus_that_stay_idle_are_named_with_what_to_raise(shown, words, said):
    text = shown(*words)
    assert said in " ".join(text.split())
    assert re.search(r"│ node \d( to \d)? +│ idle +│", text)


def test_what_is_to_be_raised_leaves_no_gpu_idle(shown):
    for words in (["conf=internvl_8b", "cluster.nodes=2"], ["conf=internvl_8b", "cluster.nodes=3", "cluster.gpus_per_node=4"]):
        example = re.search(r"for example ((?:\S+=\d+ ?)+)", " ".join(shown(*words).split()))[1]
        assert "idle" not in shown(*words, *example.split())


SHAPES = [
    ["conf=quickstart"],
    ["conf=debug"],
    ["conf=debug", "cluster.nodes=1"],
    ["conf=internvl_8b"],
    ["conf=internvl_8b", *ONE, "learner.offload=optimizer"],
    ["conf=internvl_8b", *EIGHT],
    ["conf=internvl_8b", "cluster.nodes=2"],
    ["conf=internvl_8b", *SIXTY_FOUR],
    ["conf=internvl_8b", "cluster.nodes=125", "rollout.num_workers=375", "learner.num_workers=500",
     "reference.num_workers=125", "rollout.prompts_per_step=16000"],
    ["conf=qwen2_5_vl_7b", *EIGHT],
]  # fmt: skip


@pytest.mark.parametrize("words", SHAPES, ids=" ".join)
@pytest.mark.parametrize("columns", ["80", "120"])
def test_no_line_is_too_long_and_no_word_is_cut(monkeypatch, capsys, words, columns):
    def words_at(width: str | None) -> list[str]:
        if width is not None:
            monkeypatch.setenv("COLUMNS", width)
        try:
            dry_run(load_config([words[0], *OURS, *words[1:]]))
        except UserError as error:
            assert "this machine alone cannot hold it" in str(error)
        text = capsys.readouterr().out
        assert width == "1000" or max(map(len, text.splitlines())) <= int(width or 80)
        return sorted(re.findall(r"[^\s│┃┏┓┗┛┡┩┳┻╇├┤┼┬┴└┘━─]+", text))

    assert words_at(None if columns == "80" else columns) == words_at("1000")  # piped, rich takes 80


def test_an_engine_without_room_for_a_cache_is_refused():
    with pytest.raises(UserError, match="nothing is left for the KV cache; raise rollout.gpu_memory_fraction"):
        dry_run(load_config(["conf=internvl_8b", *OURS, *EIGHT, "rollout.gpu_memory_fraction=0.2"]))


def test_what_may_not_fit_is_told_with_its_addition():
    load = Load("GPU of learner", {("learner", "weights"): 2**30, ("learner", "logits"): 2**31}, 2.0**31)
    assert judge([load]) == [
        "may not fit, at the most: GPU of learner: learner weights 1.0 + learner logits 2.0 = 3.0 GiB, of 2.0 GiB"
    ]
    assert judge([Load("host", load.parts, None)]) == []
    with pytest.raises(UserError, match="GPU of learner: learner weights 1.0 = 1.0 GiB, of 0.5 GiB"):
        judge([Load("GPU of learner", load.parts, 2.0**29)])
