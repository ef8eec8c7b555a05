"""An object in a process of its own, called through a pipe: so that two sides of a comparison share nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any


class Process:
    """Runs `serve(receive, send, *arguments)` in a fresh interpreter. `ask` sends a request and waits for its answer.

    environment: set there, before anything is imported, beside what this process has.
    """

    def __init__(
        self, serve: Callable[..., None], *arguments: Any, environment: Mapping[str, str] = MappingProxyType({})
    ):
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_run, args=(serve, other, arguments), daemon=True)
        with _added(environment):
            self._process.start()
        other.close()
        self.ready = self._receive()

    def ask(self, request: Any) -> Any:
        self._pipe.send(request)
        return self._receive()

    def stop(self) -> None:
        """Halts it where it is, until `go_on`."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def close(self) -> None:
        self._process.terminate()
        self.go_on()  # the signal finds no one who is halted
        self._process.join()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _receive(self) -> Any:
        try:
            failed, answer = self._pipe.recv()
        except EOFError:
            raise SystemExit("the other side of the comparison died") from None
        if failed:
            raise SystemExit(answer)
        return answer


@contextmanager
def _added(environment: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _run(serve: Callable[..., None], pipe, arguments: tuple) -> None:
    try:
        serve(pipe.recv, lambda answer: pipe.send((False, answer)), *arguments)
    except SystemExit as stop:
        pipe.send((True, str(stop)))
    except BaseException:
        pipe.send((True, traceback.format_exc()))
