"""Weights & Biases, when asked for. The run's own files are the record: its failures are warnings."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from mixed_r1_ray.config import Config
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.redaction import redact
from mixed_r1_ray.runtime import atomic
from mixed_r1_ray.runtime.run_dir import RunDir


class Tracker:
    """Sends metrics to wandb; with `tracking.wandb=disabled` it does nothing and wandb is not imported.

    The wandb run's id lies in the run folder (wandb_run_id), so a continued run goes on in the same one.
    After a first failure in mid-run nothing more is sent, and `warn` is told once.
    """

    def __init__(self, config: Config, run_dir: RunDir, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._run = None if config.tracking.wandb == "disabled" else _start(config, run_dir)

    def log(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Sends one line of metrics.jsonl."""
        values = {name: value for name, value in metrics.items() if value is not None}
        self._attempt(lambda run: run.log(values | {"step": step}))

    def close(self, failed: bool = False) -> None:
        """Ends the wandb run as finished or failed; a second call does nothing."""
        self._attempt(lambda run: run.finish(exit_code=int(failed)))
        self._run = None

    def _attempt(self, action: Callable[[Any], object]) -> None:
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:  # whatever wandb does, the training it watches goes on
            self._run = None
            self._warn(
                f"wandb stopped working ({type(error).__name__}: {error}); metrics.jsonl has everything"
            )


def check_tracking(config: Config) -> None:
    """Raises UserError where `tracking.wandb` asks for a package or an account that is not there."""
    if config.tracking.wandb == "disabled":
        return
    try:
        import wandb
    except ImportError as error:
        raise UserError(
            f"tracking.wandb={config.tracking.wandb} needs wandb ({error}): pip install wandb, or set "
            f"tracking.wandb=disabled"
        ) from error
    if config.tracking.wandb == "online" and not (os.environ.get("WANDB_API_KEY") or wandb.api.api_key):
        raise UserError(
            "tracking.wandb=online needs an account: run `wandb login` or set WANDB_API_KEY, or use "
            "tracking.wandb=offline"
        )


def _start(config: Config, run_dir: RunDir):
    check_tracking(config)
    import wandb

    try:
        run = wandb.init(
            project=config.tracking.project,
            name=config.run.name,
            id=_run_id(run_dir),
            resume="allow",
            mode=config.tracking.wandb,
            dir=str(run_dir.path),
            config=asdict(redact(config)),
            # Without metadata: it holds the command line with whatever secret is in it.
            settings=wandb.Settings(console="off", silent=True, save_code=False, disable_git=True, x_disable_meta=True),
        )
        # A step of its own: wandb drops lines whose built-in step goes back, as it does after a resume.
        run.define_metric("step", hidden=True)
        run.define_metric("*", step_metric="step")
    except Exception as error:
        raise UserError(
            f"tracking.wandb={config.tracking.wandb} could not start ({type(error).__name__}: {error}); "
            f"use tracking.wandb=offline or disabled"
        ) from error
    return run


def _run_id(run_dir: RunDir) -> str:
    file = run_dir.path / "wandb_run_id"
    if not file.is_file():
        atomic.write_text(file, secrets.token_hex(4) + "\n")
    return file.read_text(encoding="utf-8").strip()
