"""What can be said of a run before it starts anything: a run asks, and dry_run asks the same. Nothing is changed."""

from __future__ import annotations

from collections.abc import Callable

from .config import SYNTHETIC, TINY, Config
from .errors import UserError


def check_before_start(config: Config) -> None:
    """Raises UserError with all that speaks against the run."""
    problems, _ = look(config)
    if problems:
        raise UserError("\n".join(problems))


def look(config: Config) -> tuple[list[str], list[str]]:
    """What speaks against the run, and what else a person should know of it."""
    problems, notes = [], []
    for check in CHECKS:
        try:
            notes.append(check(config))
        except UserError as error:
            problems.append(f"{error}")
    return problems, [note for note in notes if note]


def _training_data(config: Config) -> None:
    _check_records("data.train", config.data.train)


def _held_out_data(config: Config) -> None:
    _check_records("data.eval", config.data.eval)


def _check_records(key: str, path: str | None) -> None:
    """Files are there, are Parquet and have the columns of records: their footers say so."""
    if path in (SYNTHETIC, None):
        return
    from .data.record_files import open_files

    try:
        open_files([path])
    except UserError as error:
        raise UserError(f"{key}={error}") from None


def _model(config: Config) -> str | None:
    if config.model.path.startswith(TINY):  # which families there are of these, config_check.py says
        return None
    from .vlm.checkpoint_check import check_checkpoint

    return check_checkpoint(config.model.path)


def _reward_function(config: Config) -> None:
    if config.reward.custom is not None:
        from .rewards.custom import check_loads

        check_loads(config.reward.custom)


def _tracking(config: Config) -> None:
    from .runtime.tracking import check_tracking

    check_tracking(config)


def _run_folder(config: Config) -> None:
    from .runtime.run_dir import check_run_dir

    check_run_dir(config)


CHECKS: tuple[Callable[[Config], str | None], ...] = (
    _training_data,
    _held_out_data,
    _model,
    _reward_function,
    _tracking,
    _run_folder,
)
