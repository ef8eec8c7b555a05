from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from mixed_r1_ray.config import Config
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.runtime.run_dir import open_run_dir
from mixed_r1_ray.runtime.tracking import Tracker


def config_in(folder, mode: str, resume: str = "never") -> Config:
    config = Config()
    return replace(
        config,
        run=replace(config.run, dir=str(folder), name="one", resume=resume),
        tracking=replace(config.tracking, wandb=mode),
    )


def test_disabled_does_nothing_and_does_not_import_wandb(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it now would raise
    config = config_in(tmp_path, "disabled")
    with open_run_dir(config) as run_dir:
        tracker = Tracker(config, run_dir, pytest.fail)
        tracker.log(1, {"reward/mean": 1.0})
        tracker.close()
    assert not (tmp_path / "one" / "wandb").exists()


def test_missing_wandb_is_one_clear_message(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    config = config_in(tmp_path, "offline")
    with open_run_dir(config) as run_dir, pytest.raises(UserError, match="pip install wandb"):
        Tracker(config, run_dir, pytest.fail)


def test_online_without_an_account_says_so_instead_of_asking(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr(type(wandb.api), "api_key", None)
    config = config_in(tmp_path, "online")
    with open_run_dir(config) as run_dir, pytest.raises(UserError, match="wandb login"):
        Tracker(config, run_dir, pytest.fail)


def test_offline_writes_a_run_and_a_continued_one_keeps_its_id(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    for resume in ("never", "auto"):
        config = config_in(tmp_path, "offline", resume)
        with open_run_dir(config) as run_dir:
            tracker = Tracker(config, run_dir, pytest.fail)
            tracker.log(1, {"reward/mean": 1.0, "kl/reference": None})
            tracker.close()
            run_dir.metrics_file.write_text('{"step": 1}\n')
            run_id = (run_dir.path / "wandb_run_id").read_text().strip()
    files = [path.stem for path in (tmp_path / "one" / "wandb").rglob("*.wandb")]
    assert set(files) == {f"run-{run_id}"} and files


def test_a_failure_in_mid_run_is_one_warning(tmp_path):
    class Broken:
        def log(self, values):
            raise ConnectionError("gone")

    warnings = []
    config = config_in(tmp_path, "disabled")
    with open_run_dir(config) as run_dir:
        tracker = Tracker(config, run_dir, warnings.append)
        tracker._run = Broken()
        for step in (1, 2):
            tracker.log(step, {})
        tracker.close()
    assert len(warnings) == 1 and "ConnectionError: gone" in warnings[0]
