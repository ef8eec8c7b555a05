"""Where every actor of a run is, when someone asks: each answers with its call, since when, and the stacks of its threads.

RUN/stalls/ask          touched by who wants to know: the driver where a wait lasts long, or you
          /NAME.txt     the answer of that actor, a few seconds later

An actor that does not answer is stopped, holds Python's lock in native code, or cannot reach the folder.
"""

from __future__ import annotations

import functools
import inspect
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread, get_ident, main_thread

from mixed_r1_ray.config import Config
from mixed_r1_ray.runtime import atomic

POLL_S = 1.0
PATIENCE_S = 6.0  # for answers
_own: _Whereabouts | None = None  # this process's, if it is an actor's


def folder_of(config: Config) -> Path:
    """Where actors of a run are asked and answer."""
    return Path(config.run.dir) / config.run.name / "stalls"


def observed(actor_class: type) -> type:
    """Decorates an actor class, below `ray.remote`: it then says where it is when asked.

    Its constructor's first argument is the configuration. What Ray has not named says nothing.
    """
    for name, function in list(vars(actor_class).items()):
        if inspect.isfunction(function) and (name == "__init__" or not name.startswith("_")):
            setattr(actor_class, name, _observed(function))
    return actor_class


def ask(folder: Path, names: Collection[str]) -> dict[str, str | None]:
    """What each of these actors says to where it is; None of those that do not answer."""
    folder.mkdir(parents=True, exist_ok=True)
    answers = {name: folder / f"{name}.txt" for name in names}
    for file in answers.values():
        file.unlink(missing_ok=True)
    (folder / "ask").touch()
    patience = time.monotonic() + PATIENCE_S
    while time.monotonic() < patience and not all(file.exists() for file in answers.values()):
        time.sleep(POLL_S / 5)
    (folder / "ask").unlink(missing_ok=True)
    said = {name: file.read_text(encoding="utf-8") if file.exists() else None for name, file in answers.items()}
    for file in answers.values():
        file.unlink(missing_ok=True)
    return said


def stacks() -> str:
    """Stacks of this process's threads but the one that asks, the main one first."""
    frames = {thread: frame for thread, frame in sys._current_frames().items() if thread != get_ident()}
    order = sorted(frames, key=lambda thread: thread != main_thread().ident)
    parts = [f"thread {thread}\n{''.join(traceback.format_stack(frames[thread]))}" for thread in order]
    return "\n".join(parts)


class _Whereabouts:
    """What this process does, and a thread that tells it."""

    def __init__(self, name: str, folder: Path):
        self.name, self.folder = name, folder
        self._call: tuple[str, float] | None = None
        Thread(target=self._listen, name="whereabouts", daemon=True).start()

    @contextmanager
    def during(self, call: str) -> Iterator[None]:
        outer, self._call = self._call, (call, time.time())
        try:
            yield
        finally:
            self._call = outer

    def _listen(self) -> None:
        answered = None
        while True:
            time.sleep(POLL_S)
            try:
                asked = (self.folder / "ask").stat().st_mtime_ns
                if asked != answered:
                    atomic.write_text(self.folder / f"{self.name}.txt", self._said())
                    answered = asked
            except OSError:  # nobody asks, or the folder is out of reach
                continue

    def _said(self) -> str:
        call = self._call
        if call is None:
            return "idle\n"
        return f"in {call[0]} for {time.time() - call[1]:.0f} s\n{stacks()}"


def _observed(function: Callable) -> Callable:
    """The method, noted for as long as it runs."""
    starts = function.__name__ == "__init__"
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def generate(*arguments, **named):
            with _noted(function.__name__):
                yield from function(*arguments, **named)

        return generate

    @functools.wraps(function)
    def call(*arguments, **named):
        if starts:
            _introduce(arguments[1])
        with _noted(function.__name__):
            return function(*arguments, **named)

    return call


@contextmanager
def _noted(call: str) -> Iterator[None]:
    if _own is None:
        yield
    else:
        with _own.during(call):
            yield


def _introduce(config: Config) -> None:
    import ray

    global _own
    name = ray.is_initialized() and ray.get_runtime_context().get_actor_name()
    if name and _own is None:
        _own = _Whereabouts(name, folder_of(config))
