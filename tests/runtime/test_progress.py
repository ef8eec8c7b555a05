from __future__ import annotations

import io

import pytest
from rich.console import Console

from mixed_r1_ray.runtime import progress as module
from mixed_r1_ray.runtime.evaluation_table import EvalResult, summary_table
from mixed_r1_ray.runtime.progress import Progress, duration, step_line

METRICS = {
    "reward/mean": 0.714,
    "reward/matching": 0.5,
    "reward/chart": None,
    "reward/format": 1.0,
    "throughput/tokens_per_s": 1234.4,
    "time/step_s": 1.94,
}


def plain(max_steps: int = 160) -> tuple[Progress, io.StringIO]:
    out = io.StringIO()
    return Progress(max_steps, console=Console(file=out, width=200, force_terminal=False)), out


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

    monkeypatch.setattr(module.time, "monotonic", lambda: Clock.now)
    return Clock


def test_a_step_is_one_plain_line():
    line = step_line(12, 160, METRICS, 280)
    assert line == (
        "step  12/160  reward 0.714  matching 0.500  chart –  format 1.000  1,234 tok/s  1.9 s  4m40s left"
    )


def test_time_left_counts_everything_between_recent_steps_and_nothing_before_the_first(clock):
    progress, _ = plain(max_steps=10)
    progress.start_steps(3)
    clock.now += 60.0  # an evaluation, then a step of 2 s
    progress.step(3, {"time/step_s": 2.0})
    assert progress.seconds_left() == 7 * 2.0
    clock.now += 5.0  # an evaluation of 3 s and a step of 2 s
    progress.step(4, {"time/step_s": 2.0})
    assert progress.seconds_left() == 6 * (2.0 + 5.0) / 2


def test_counted_phases_speak_at_first_every_ten_seconds_and_at_the_end(clock):
    progress, out = plain()
    for done in range(101):
        progress.phase("warm start", done, 100)
        clock.now += 0.24
    assert out.getvalue().splitlines() == [
        "warm start 0/100",
        "warm start 42/100",
        "warm start 84/100",
        "warm start 100/100",
    ]


def test_a_plain_phase_is_said_once_until_another_comes():
    progress, out = plain()
    for text in ("starting 4 engines", "starting 4 engines", "evaluating"):
        progress.phase(text)
    assert out.getvalue().splitlines() == ["starting 4 engines", "evaluating"]


def test_text_with_brackets_is_printed_as_it_stands():
    progress, out = plain()
    progress.warning("row 3: [bold]x[/bold] :smile:")
    progress.print("answer [1, 2]")
    assert out.getvalue().splitlines() == ["warning: row 3: [bold]x[/bold] :smile:", "answer [1, 2]"]


def test_tables_are_plain_where_there_is_no_terminal():
    progress, out = plain()
    progress.table(summary_table([EvalResult("a", "chart", "s", "greedy", 1.5, 1.0, 1.0, "r")], "Held-out"))
    assert "chart" in out.getvalue() and "┃" not in out.getvalue() and "\x1b" not in out.getvalue()


def test_a_terminal_gets_a_live_line_and_the_same_step_lines():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=200, color_system="standard", highlight=False)
    with Progress(160, console=console) as progress:
        progress.step(1, METRICS)
        progress.warning("careful [x]")
        progress.phase("warm start [1]", 30, 600)  # the last state is drawn when the line is put away
    text = out.getvalue()
    assert "step   1/160" in text and "careful [x]" in text and "warm start [1]" in text and "30/600" in text
    assert "\x1b[?25h" in text  # the cursor is given back


@pytest.mark.parametrize(("seconds", "text"), [(7.6, "8s"), (59.6, "1m00s"), (280, "4m40s"), (7500, "2h05m")])
def test_durations(seconds, text):
    assert duration(seconds) == text
