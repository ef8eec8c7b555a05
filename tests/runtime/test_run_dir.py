from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mixed_r1_ray.config import Config
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.runtime.run_config import read_config
from mixed_r1_ray.runtime.run_dir import open_run_dir


def config_in(folder: Path, **run) -> Config:
    config = Config()
    return replace(config, run=replace(config.run, dir=str(folder), name="one", **run))


def leave_a_run(folder: Path) -> Path:
    with open_run_dir(config_in(folder)) as run_dir:
        run_dir.metrics_file.write_text('{"step": 1}\n')
        for sub, name in (("rollouts", "step_000001.parquet"), ("evals", "step_000000.parquet")):
            (run_dir.path / sub).mkdir()
            (run_dir.path / sub / name).write_bytes(b"x")
        (run_dir.checkpoints / "step_000001").mkdir(parents=True)
        (run_dir.checkpoints / "latest").symlink_to("step_000001")
    return folder / "one"


def test_fresh_folder_gets_a_config_that_reads_back_and_names_the_environment(tmp_path):
    with open_run_dir(config_in(tmp_path, seed=7)) as run_dir:
        saved, environment = read_config(run_dir.config_file)
        assert not run_dir.resumed
    assert saved["run"]["seed"] == 7 and saved["learner"]["betas"] == [0.9, 0.95]
    assert environment["packages"]["numpy"] and environment["git_revision"] and environment["started"]


def test_written_config_can_be_run_again(tmp_path):
    from mixed_r1_ray.config_load import load_config

    config = config_in(tmp_path, seed=7)
    with open_run_dir(config) as run_dir:
        assert load_config([f"conf={run_dir.config_file}"]) == config


def test_never_refuses_a_folder_that_holds_a_run_and_says_what_to_do(tmp_path):
    leave_a_run(tmp_path)
    with pytest.raises(
        UserError, match=r"already holds a run.*step_000001.*run\.resume=auto.*run\.resume=overwrite"
    ):
        open_run_dir(config_in(tmp_path))


def test_never_reuses_a_folder_whose_run_did_not_finish_a_step(tmp_path):
    open_run_dir(config_in(tmp_path, seed=1)).close()
    with open_run_dir(config_in(tmp_path, seed=2)) as run_dir:
        assert not run_dir.resumed
        assert read_config(run_dir.config_file)[0]["run"]["seed"] == 2


def test_auto_continues_and_may_lengthen_the_run(tmp_path):
    path = leave_a_run(tmp_path)
    with open_run_dir(config_in(tmp_path, resume="auto", max_steps=999)) as run_dir:
        assert run_dir.resumed
    assert (path / "metrics.jsonl").read_text() == '{"step": 1}\n'
    saved, environment = read_config(path / "config.yaml")
    assert saved["run"]["max_steps"] == 999 and len(environment["continued"]) == 1


def test_auto_starts_afresh_where_there_is_nothing(tmp_path):
    with open_run_dir(config_in(tmp_path, resume="auto")) as run_dir:
        assert not run_dir.resumed


def test_auto_refuses_what_makes_another_run_and_names_every_key(tmp_path):
    leave_a_run(tmp_path)
    config = config_in(tmp_path, resume="auto", seed=5)
    config = replace(
        config, algo=replace(config.algo, beta=0.5), tracking=replace(config.tracking, project="p")
    )
    with pytest.raises(UserError) as raised:
        open_run_dir(config)
    message = str(raised.value)
    assert "algo.beta: 0.04 -> 0.5" in message and "run.seed: 0 -> 5" in message
    assert "tracking" not in message and "run.resume:" not in message


def test_a_refused_folder_is_left_as_it_was_and_unlocked(tmp_path):
    path = leave_a_run(tmp_path)
    before = (path / "config.yaml").read_bytes()
    for _ in range(2):
        with pytest.raises(UserError, match="different run"):
            open_run_dir(config_in(tmp_path, resume="auto", seed=5))
    assert (path / "config.yaml").read_bytes() == before


def test_auto_warns_of_other_package_versions(tmp_path):
    path = leave_a_run(tmp_path)
    text = (path / "config.yaml").read_text()
    line = next(line for line in text.splitlines() if line.startswith("#   numpy:"))
    (path / "config.yaml").write_text(text.replace(line, "#   numpy: 1.0.0"))
    with open_run_dir(config_in(tmp_path, resume="auto")) as run_dir:
        assert [text for text in run_dir.warnings if "numpy" in text and "1.0.0" in text]


def test_overwrite_clears_what_a_run_left_and_nothing_else(tmp_path):
    path = leave_a_run(tmp_path)
    (path / "notes.txt").write_text("mine")
    (path / "checkpoints" / "mine.txt").write_text("mine")
    with open_run_dir(config_in(tmp_path, resume="overwrite", seed=3)) as run_dir:
        assert not run_dir.resumed
    left = {str(file.relative_to(path)) for file in path.rglob("*")}
    assert left == {"config.yaml", "notes.txt", "checkpoints", "checkpoints/mine.txt"}


@pytest.mark.parametrize("resume", ["never", "auto", "overwrite"])
def test_a_folder_of_somebody_else_is_never_touched(tmp_path, resume):
    (tmp_path / "one" / "checkpoints" / "step_1").mkdir(parents=True)
    with pytest.raises(UserError, match=r"not a run's \(checkpoints\)"):
        open_run_dir(config_in(tmp_path, resume=resume))
    assert [file.name for file in (tmp_path / "one").iterdir()] == ["checkpoints"]


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "one").write_text("")
    with pytest.raises(UserError, match="is a file"):
        open_run_dir(config_in(tmp_path))


HOLDER = """
import sys, time
from mixed_r1_ray.config import Config
from mixed_r1_ray.runtime.run_dir import open_run_dir
config = Config()
config.run.dir, config.run.name = sys.argv[1], "one"
held = open_run_dir(config)
print("held", flush=True)
time.sleep(60)
"""


def test_two_drivers_cannot_share_a_folder_and_a_killed_one_leaves_no_lock(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline().strip() == "held"
        with pytest.raises(UserError, match=f"in use by process {holder.pid} on"):
            open_run_dir(config_in(tmp_path))
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    open_run_dir(config_in(tmp_path)).close()
    assert not (tmp_path / "one" / "run.lock").exists()
