"""Signals in mid-run, sent for real to this process."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from mixed_r1_ray.interrupt import StopRequest, interrupt_on_sigterm


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


def test_sigterm_interrupts_as_ctrl_c_does():
    former = signal.getsignal(signal.SIGTERM)
    try:
        interrupt_on_sigterm()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, former)
