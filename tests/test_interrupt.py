"""Signals in mid-run, sent for real to this process."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from mixed_r1_ray import interrupt
from mixed_r1_ray.interrupt import StopRequest


@pytest.fixture(autouse=True)
def _not_interrupted(monkeypatch):
    """What is remembered of a signal ends with the test."""
    monkeypatch.setattr(interrupt, "_interrupted", threading.Event())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_asks_and_second_stops(number):
    said = []
    with StopRequest(said.append, "stopping soon") as stop:
        stop.raise_if_requested()
        os.kill(os.getpid(), number)
        assert stop.requested and len(said) == 1
        with pytest.raises(KeyboardInterrupt):
            stop.raise_if_requested()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert said == ["stopping soon; once more to stop at once"]
    with pytest.raises(KeyboardInterrupt):  # the second one is remembered too, should it be swallowed
        interrupt.raise_if_interrupted()


def test_different_signals_count_together():
    with StopRequest(lambda _: None, ""):
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_former_handlers_come_back_also_after_an_error():
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.raises(ZeroDivisionError), StopRequest(print, ""):
        assert signal.getsignal(signal.SIGTERM) != former[signal.SIGTERM]
        1 / 0  # noqa: B018
    assert {number: signal.getsignal(number) for number in former} == former


def test_off_the_main_thread_signals_are_left_alone():
    seen = []

    def run():
        with StopRequest(print, "") as stop:
            seen.append((signal.getsignal(signal.SIGTERM), stop.requested))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(signal.getsignal(signal.SIGTERM), False)]


@pytest.fixture
def catching():
    """Handlers as a run has them, taken off again afterwards."""
    former = {number: signal.getsignal(number) for number in interrupt.SIGNALS}
    interrupt.catch_interrupts()
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", interrupt.SIGNALS)
def test_signal_outside_the_loop_interrupts(catching, number):
    interrupt.raise_if_interrupted()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupt_that_a_finalizer_swallowed_comes_back(catching):
    class Swallows:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)

    Swallows()
    with pytest.raises(KeyboardInterrupt):
        interrupt.raise_if_interrupted()
