"""The math reward: decided in a process that a hostile expression may hang, and nothing else with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from mixed_r1_ray.rewards import (
    GoldError,
    RewardRequest,
    RewardSample,
    RewardScorer,
    score,
    score_batch,
    validate_gold,
)
from mixed_r1_ray.rewards.math_process import MathVerifier, _compare_whole_numbers
from mixed_r1_ray.rewards.mathematics import compare

TIMEOUT_S = 1.0
TOWER = "9^{9^{9^{9}}}"


@pytest.fixture
def verifier():
    verifier = MathVerifier(TIMEOUT_S)
    yield verifier
    verifier.close()


def requests(*answers: str, gold: str = "42") -> list[RewardRequest]:
    return [RewardRequest("math", f"<answer>{answer}</answer>", gold) for answer in answers]


def test_an_answer_that_takes_too_long_is_wrong_and_the_others_are_scored(verifier):
    started = time.monotonic()
    breakdowns = score_batch(requests("42", TOWER, "6 \\times 7", "41"), verifier=verifier)
    assert [breakdown.task for breakdown in breakdowns] == [1.0, 0.0, 1.0, 0.0]
    assert "took longer than 1 s" in breakdowns[1].detail
    assert time.monotonic() - started < 20


def test_a_gold_that_hangs_its_process_is_an_error_of_the_data(verifier):
    (breakdown,) = score_batch(requests("42", gold=TOWER), verifier=verifier)
    assert breakdown.total is None and "took longer than 1 s" in breakdown.detail


def test_a_process_that_dies_leaves_its_sample_unscored(verifier):
    score_batch(requests("6 \\times 7"), verifier=verifier)
    child = verifier._process._running.process.pid
    threading.Timer(0.3, os.kill, (child, signal.SIGKILL)).start()
    verifier.timeout_s = 30.0
    breakdowns = score_batch(requests("6 \\times 7", TOWER, "84 / 2"), verifier=verifier)
    assert [breakdown.task for breakdown in breakdowns] == [1.0, None, 1.0]
    assert "SIGKILL" in breakdowns[1].detail


WHOLE = ("42", "-42", "+42", "042", "0", "-0", r"\boxed{42}", "$42$", r"$\boxed{-42}$.", "42.", "$42.$", " 41 ", "123456789012345")
NOT_WHOLE = ("4 2", "4{2}", "42.0", "1/2", "42%", r"\boxed{42", "$42", "4e1", "42,000", r"\boxed{42} 1", "", "x")


@pytest.mark.parametrize("gold", WHOLE)
def test_whole_numbers_compare_as_math_verify_compares_them(gold):
    for answer in WHOLE:
        assert _compare_whole_numbers((gold,), answer).value == compare(gold, answer)[0], (gold, answer)


def test_what_is_no_whole_number_is_left_to_math_verify():
    assert all(_compare_whole_numbers(("42",), answer) is None for answer in NOT_WHOLE)
    assert all(_compare_whole_numbers(("42", gold), "42") is None for gold in NOT_WHOLE)


def test_a_whole_number_needs_no_process(verifier):
    breakdowns = score_batch(requests("42", "41"), verifier=verifier)
    assert [breakdown.task for breakdown in breakdowns] == [1.0, 0.0]
    assert verifier._process._running is None


def test_it_works_off_the_main_thread_and_from_several_at_once():
    found = []

    def work() -> None:
        found.append([score("math", f"<answer>{answer}</answer>", "1/2").task for answer in ("0.5", "0.6")])

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert found == [[1.0, 0.0]] * 3


def test_alarms_of_the_caller_are_left_alone():
    rung = []
    former = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        for number in range(20):
            assert score("math", f"<answer>$\\frac{{{number}}}{{7}}$</answer>", f"{number}/7").task == 1.0
        time.sleep(0.3)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    assert rung == [1]


@pytest.mark.parametrize("gold", ["red", "\\frac{1}{", "no idea at all", '{"any_of": ["1", "red"]}', "   "])
def test_what_is_no_mathematics_is_refused_as_a_gold(gold):
    with pytest.raises(GoldError):
        validate_gold("math", gold)


@pytest.mark.parametrize(
    "gold", ["42", "-0.5", "$x = 3$", "\\boxed{\\frac{1}{2}}", "(1, 2)", "x > 3", "2\\pi", "30°"]
)
def test_usual_golds_are_read_and_equal_themselves(gold):
    validate_gold("math", gold)
    assert score("math", f"<answer>{gold}</answer>", gold).task == 1.0


def test_a_plain_number_needs_no_process_to_be_a_gold(verifier):
    verifier.check_gold("-12.5")
    assert verifier._process._running is None


@pytest.mark.parametrize(
    "answer",
    [
        *(piece * (2000 // len(piece)) for piece in ("(", "{", "1", "1+", "^", "$", "\\", "\\frac{")),
        *("\ud800", "\x00", "$" + "x" * 2000),
    ],
    ids=range(11),
)
def test_hostile_answers_are_wrong_not_errors(verifier, answer):
    (breakdown,) = score_batch(requests(answer), verifier=verifier)
    assert breakdown.task == 0.0


def test_memory_is_limited_beyond_what_is_in_use_and_running_out_is_a_wrong_answer():
    code = """
from mixed_r1_ray.rewards import mathematics
held = bytearray(300 << 20)
mathematics._MEMORY = 200 << 20
answer = mathematics.load()
answer([["answer", "42", "42"], ["answer", "42", "1"]], lambda *reply: print(reply[:2]), False)
mathematics.compare = lambda *_: (float(len(bytearray(400 << 20))), "")
answer([["answer", "42", "42"]], lambda *reply: print(reply), False)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [
        "(0, 1.0)",
        "(1, 0.0)",
        "(0, 0.0, 'too large to compare (MemoryError)')",
    ], done.stderr


def test_the_scorer_has_a_deadline_of_its_own_for_math():
    with RewardScorer(math_timeout_s=0.5) as scorer:
        started = time.monotonic()
        (breakdown,) = scorer.score([RewardSample("math", f"<answer>{TOWER}</answer>", "42")])
    assert (breakdown.task, "0.5 s" in breakdown.detail) == (0.0, True)
    assert time.monotonic() - started < 5
