"""Builds what a run names but nobody has yet: the synthetic mixture and a warm-started tiny model.

Both are ordinary files afterwards (Parquet, a checkpoint folder), kept by a hash of what made them; the run loads them
as it would anyone's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import ray

from mixed_r1_ray.config import SYNTHETIC, TINY, Config, TinyConfig
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.remote import fetch

BUILD_TIMEOUT_S = 1800.0


@dataclass(frozen=True, slots=True)
class Built:
    """Real paths in place of `tiny:...` and `synthetic`."""

    model: str
    train: str
    eval: str | None


def build_missing(config: Config, say: Callable[..., None]) -> Built:
    """Resolves the model and the data of `config`, building what is `tiny:` or `synthetic`.

    say: told what is going on, with a count. The work is done in Ray tasks of their own processes, so that this one
    never holds a model.
    """
    model, train, held_out = config.model.path, config.data.train, config.data.eval
    if SYNTHETIC in (train, held_out) or model.startswith(TINY):
        say("making the synthetic mixture")
        data = _make_data.remote(config.tiny)
        made_train, made_eval = fetch(data, what="making the synthetic mixture", deadline_s=BUILD_TIMEOUT_S)
        train = made_train if train == SYNTHETIC else train
        held_out = made_eval if held_out == SYNTHETIC else held_out
        if model.startswith(TINY):
            model = _warm_started(config, model.removeprefix(TINY), made_train, say)
    return Built(model, train, held_out)


def build_model(config: Config, say: Callable[[str], None]) -> str:
    """The model's folder, for what needs no data: built if it is `tiny:`. say: told when a phase begins and ends."""

    def phase(text: str, done: int | None = None, total: int | None = None) -> None:
        if done is None or done == total:
            say(text if done is None else f"{text}: done")

    return build_missing(replace(config, data=replace(config.data, train="", eval=None)), phase).model


def _warm_started(config: Config, family: str, train: str, say: Callable[..., None]) -> str:
    what = f"warm-starting a tiny {family} model"
    say(what)
    for ref in _make_model.remote(config.tiny, family, train):
        done = fetch(ref, what=what, deadline_s=BUILD_TIMEOUT_S)
        if isinstance(done, str):
            return done
        say(what, done, config.tiny.warm_start_steps)
    raise UserError(f"{what} ended without a model")


@ray.remote(num_cpus=0.1, max_calls=1)
def _make_data(tiny: TinyConfig) -> tuple[str, str]:
    from mixed_r1_ray.data.synthetic import build_quickstart_data

    train, held_out = build_quickstart_data(
        tiny.cache_dir, seed=tiny.seed, train_per_type=tiny.train_per_type, eval_per_type=tiny.eval_per_type
    )
    return str(train.resolve()), str(held_out.resolve())


@ray.remote(num_cpus=0.1, max_calls=1, num_returns="streaming")
def _make_model(tiny: TinyConfig, family: str, train: str) -> Iterator[int | str]:
    """Yields the number of each finished step, then the checkpoint's folder."""
    from queue import SimpleQueue
    from threading import Thread

    from mixed_r1_ray.policy.warm_start import warm_start

    reports: SimpleQueue = SimpleQueue()

    def train_and_report() -> None:
        try:
            folder = warm_start(
                tiny.cache_dir,
                family,
                train,
                seed=tiny.seed,
                steps=tiny.warm_start_steps,
                threads=tiny.threads,
                progress=lambda step, steps, loss: reports.put(step),
            )
            reports.put(str(folder.resolve()))
        except BaseException as error:
            reports.put(error)

    Thread(target=train_and_report, daemon=True).start()
    while True:
        report = reports.get()
        if isinstance(report, BaseException):
            raise report
        yield report
        if isinstance(report, str):
            return
