"""An object in a process of its own, called through a pipe: so that two sides of a comparison share nothing."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from typing import Any


class Process:
    """Runs `serve(receive, send, *arguments)` in a fresh interpreter. `ask` sends a request and waits for its answer."""

    def __init__(self, serve: Callable[..., None], *arguments: Any):
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_run, args=(serve, other, arguments), daemon=True)
        self._process.start()
        other.close()
        self.ready = self._receive()

    def ask(self, request: Any) -> Any:
        self._pipe.send(request)
        return self._receive()

    def close(self) -> None:
        self._process.terminate()
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


def _run(serve: Callable[..., None], pipe, arguments: tuple) -> None:
    try:
        serve(pipe.recv, lambda answer: pipe.send((False, answer)), *arguments)
    except SystemExit as stop:
        pipe.send((True, str(stop)))
    except BaseException:
        pipe.send((True, traceback.format_exc()))
