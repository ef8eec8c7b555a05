"""A user's reward function: whatever it does, the other samples keep their rewards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.rewards import RewardSample, RewardScorer
from mixed_r1_ray.rewards.custom import check_loads
from mixed_r1_ray.types import BoxFrame

TIMEOUT_S = 0.5


@pytest.fixture
def function(tmp_path):
    """Writes a module and returns `path:f`."""

    def write(source: str, name: str = "f") -> str:
        path = tmp_path / "mine.py"
        path.write_text(textwrap.dedent(source))
        return f"{path}:{name}"

    return write


def samples(*texts: str, reward_type: str = "custom") -> list[RewardSample]:
    return [
        RewardSample(
            reward_type, f"<answer>{text}</answer>", "gold", prompt_id=f"p{i}", source="s", sample_index=i
        )
        for i, text in enumerate(texts)
    ]


def tasks(spec: str, *texts: str) -> tuple[list[float | None], list[str]]:
    """Task rewards and details of answers; `bad` is the one that a function is to stumble over."""
    with RewardScorer(custom=spec, custom_timeout_s=TIMEOUT_S) as scorer:
        breakdowns = scorer.score(samples(*texts))
    return [breakdown.task for breakdown in breakdowns], [breakdown.detail for breakdown in breakdowns]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pid: int, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_running(pid)


FORMS = {
    "one": "def f(sample):\n    return length(sample)\n",
    "one, async": "async def f(sample):\n    return length(sample)\n",
    "batch": "def f(samples):\n    return [length(sample) for sample in samples]\n",
    "batch, async": "async def f(samples):\n    return [length(sample) for sample in samples]\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_scores_each_sample_in_order(function, form):
    spec = function("def length(sample):\n    return len(sample.answer) * 1.5\n\n" + FORMS[form])
    assert tasks(spec, "a", "", "abc")[0] == [1.5, 0.0, 4.5]


def test_a_sample_carries_all_that_a_record_knows(function):
    spec = function("def f(sample):\n    return 1.0, repr(sample) + repr(sample.answer)")
    sample = RewardSample(
        "custom",
        "x <answer> é\ud800 </answer>",
        "g",
        "q?",
        ("a", "b"),
        (640, 480),
        BoxFrame(1000, 1000),
        "p",
        "src",
        3,
    )
    with RewardScorer(custom=spec) as scorer:
        (breakdown,) = scorer.score([sample])
    assert breakdown.detail == repr(sample) + repr("é\ud800")


def test_the_total_joins_the_format_and_any_finite_number_counts(function):
    spec = function("def f(sample):\n    return -20")
    with RewardScorer(custom=spec) as scorer:
        (breakdown,) = scorer.score([RewardSample("custom", "<think>x</think><answer>y</answer>", "g")])
    assert (breakdown.total, breakdown.task, breakdown.format) == (-19.5, -20.0, 1.0)


def test_without_an_answer_the_function_is_asked_all_the_same(function):
    spec = function("def f(sample):\n    return 0.25 if sample.answer is None else 1.0")
    with RewardScorer(custom=spec) as scorer:
        (breakdown,) = scorer.score([RewardSample("custom", "no tags", "g")])
    assert breakdown.task == 0.25


def test_it_takes_the_place_of_a_built_in_reward_and_only_of_those_named(function):
    spec = function("def f(sample):\n    return 0.125")
    mixed = samples("gold", reward_type="matching") + samples("gold", reward_type="chart") + samples("x")
    with RewardScorer(custom=spec, custom_types=("chart", "custom")) as scorer:
        assert [breakdown.task for breakdown in scorer.score(mixed)] == [1.0, 0.125, 0.125]


def test_a_custom_record_without_a_function_is_unscored_and_says_so():
    with RewardScorer() as scorer:
        (breakdown,) = scorer.score(samples("x"))
    assert breakdown.total is None and "reward.custom names no function" in breakdown.detail


def test_one_that_raises_is_unscored_with_the_traceback_and_the_sample(function):
    spec = function("def f(sample):\n    return 1 / (sample.answer != 'bad')")
    values, details = tasks(spec, "a", "bad", "c")
    assert values == [1.0, None, 1.0]
    assert "prompt 'p1', sample 1" in details[1] and "ZeroDivisionError" in details[1]
    assert "mine.py" in details[1] and "custom_function.py" not in details[1]


@pytest.mark.parametrize(
    ("expression", "named"),
    [
        ("float('nan')", "nan"),
        ("float('-inf')", "-inf"),
        ("'0.5'", "str"),
        ("None", "NoneType"),
        ("[1.0]", "list"),
        ("(1.0, 2.0)", "tuple"),
        ("10 ** 400", "int"),
    ],
)
def test_what_is_no_finite_number_is_unscored_and_named(function, expression, named):
    spec = function(f"def f(sample):\n    return {expression} if sample.answer == 'bad' else 1")
    values, details = tasks(spec, "bad", "b")
    assert values == [None, 1.0] and named in details[0]


def test_numpy_numbers_and_truth_values_are_numbers(function):
    spec = function(
        "import numpy as np\ndef f(samples):\n    return [np.float32(0.5), True, (np.int64(2), 'why')]"
    )
    values, details = tasks(spec, "a", "b", "c")
    assert values == [0.5, 1.0, 2.0] and details[2] == "why"


def test_exit_in_a_function_is_an_error_of_one_sample(function):
    spec = function("import sys\ndef f(sample):\n    if sample.answer == 'bad': sys.exit(3)\n    return 1")
    values, details = tasks(spec, "bad", "b")
    assert values == [None, 1.0] and "SystemExit" in details[0]


SLEEP = "import time\ndef f(sample):\n    if sample.answer == 'bad': time.sleep(1000)\n    return 1"
SPIN = """
import re
def f(sample):
    if sample.answer == 'bad':
        re.match('(a+)+$', 'a' * 64 + 'b')
    return 1
"""


@pytest.mark.parametrize("source", [SLEEP, SPIN], ids=["sleeps", "hangs in C"])
def test_one_that_never_returns_costs_its_own_sample_alone(function, source):
    started = time.monotonic()
    values, details = tasks(function(source), "a", "bad", "c")
    assert values == [1.0, None, 1.0]
    assert f"took longer than {TIMEOUT_S:g} s" in details[1]
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("death", "named"),
    [("os.kill(os.getpid(), 9)", "SIGKILL"), ("os._exit(7)", "exit code 7"), ("os.abort()", "SIGABRT")],
)
def test_one_that_kills_its_process_costs_its_own_sample_alone(function, death, named):
    spec = function(f"import os\ndef f(sample):\n    if sample.answer == 'bad': {death}\n    return 1")
    values, details = tasks(spec, "a", "bad", "c")
    assert values == [1.0, None, 1.0] and named in details[1]


def test_after_many_deaths_in_one_call_the_rest_is_not_tried(function):
    spec = function("import os\ndef f(sample):\n    os._exit(1)")
    values, details = tasks(spec, *"abcdefghijklmnopqrs")
    assert (
        values == [None] * 19 and ["not tried" in detail for detail in details] == [False] * 16 + [True] * 3
    )


def test_deaths_with_answers_between_are_no_reason_to_stop(function):
    spec = function("import os\ndef f(sample):\n    if sample.answer == 'bad': os._exit(1)\n    return 1")
    values, _ = tasks(spec, *["bad", "good"] * 18)
    assert values == [None, 1.0] * 18


def test_a_large_call_is_split_between_groups(function):
    spec = function("def f(samples):\n    return [len(samples)] * len(samples)")
    groups = [100, 100, 100, 700, 5]
    many = [
        RewardSample("custom", "", "g", prompt_id=f"p{number}", sample_index=index)
        for number, size in enumerate(groups)
        for index in range(size)
    ]
    with RewardScorer(custom=spec) as scorer:
        sizes = [breakdown.task for breakdown in scorer.score(many)]
    assert sizes == [300] * 300 + [512] * 512 + [193] * 193


def test_a_flood_of_output_stops_nothing_and_stays_off_standard_output(function, capfd):
    spec = function("def f(sample):\n    print('x' * 300_000)\n    return 1")
    assert tasks(spec, "a", "b")[0] == [1.0, 1.0]
    assert capfd.readouterr().out == ""


def test_one_that_forks_answers_once(function):
    spec = function("import os\ndef f(sample):\n    os.fork()\n    return float(sample.answer)")
    assert tasks(spec, "1", "2", "3")[0] == [1.0, 2.0, 3.0]


def test_what_it_started_ends_with_it(function, tmp_path):
    spec = function(
        f"""
        import subprocess, pathlib
        def f(sample):
            child = subprocess.Popen(["sleep", "1000"])
            pathlib.Path({str(tmp_path)!r}, "pid").write_text(str(child.pid))
            return 1
        """
    )
    assert tasks(spec, "a")[0] == [1.0]
    assert wait_until_gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("parameter", ["sample", "samples"])
def test_async_calls_share_one_event_loop(function, parameter):
    spec = function(
        f"""
        import asyncio
        loops = set()
        async def f({parameter}):
            loops.add(asyncio.get_running_loop())
            return len(loops) if "{parameter}" == "sample" else [len(loops)]
        """
    )
    with RewardScorer(custom=spec) as scorer:
        assert [scorer.score(samples("a"))[0].task for _ in range(2)] == [1.0, 1.0]


def test_async_samples_run_side_by_side(function):
    spec = function("import asyncio\nasync def f(sample):\n    await asyncio.sleep(0.2)\n    return 1")
    with RewardScorer(custom=spec, custom_timeout_s=5) as scorer:
        started = time.monotonic()
        assert [b.task for b in scorer.score(samples(*"abcdefghijklmnopqrst"))] == [1.0] * 20
    assert time.monotonic() - started < 2.0  # one after the other: 4


def test_an_async_sample_that_waits_for_ever_is_alone_unscored(function):
    spec = function(
        "import asyncio\n"
        "async def f(sample):\n    await asyncio.sleep(1000 * (sample.answer == 'bad'))\n    return 1"
    )
    values, details = tasks(spec, "a", "bad", "c")
    assert values == [1.0, None, 1.0] and "took longer" in details[1]


def test_an_async_sample_that_blocks_the_others_is_found(function):
    spec = function(
        "import time\nasync def f(sample):\n    time.sleep(1000 * (sample.answer == 'bad'))\n    return 1"
    )
    assert tasks(spec, "a", "bad", "c")[0] == [1.0, None, 1.0]


def test_a_batch_that_overruns_or_has_a_wrong_length_is_unscored_whole_and_the_next_is_scored(function):
    spec = function(
        """
        import time
        def f(samples):
            answers = [sample.answer for sample in samples]
            time.sleep(1000 * ("slow" in answers))
            return [1.0] * (len(samples) - answers.count("short"))
        """
    )
    with RewardScorer(custom=spec, custom_timeout_s=TIMEOUT_S) as scorer:
        for word, reason in (("slow", "took longer"), ("short", "1 values for 2 samples")):
            breakdowns = scorer.score(samples("a", word))
            assert [b.task for b in breakdowns] == [None, None]
            assert reason in breakdowns[0].detail
        assert [b.task for b in scorer.score(samples("a", "b"))] == [1.0, 1.0]


def test_state_is_kept_from_call_to_call_until_the_process_is_lost(function):
    spec = function(
        "import os\nseen = []\n"
        "def f(sample):\n    seen.append(1)\n    if sample.answer == 'bad': os._exit(1)\n    return len(seen)"
    )
    with RewardScorer(custom=spec) as scorer:
        assert [b.task for b in scorer.score(samples("a"))] == [1.0]
        assert [b.task for b in scorer.score(samples("a", "bad", "c"))] == [2.0, None, 1.0]


def test_it_may_import_its_neighbours_and_define_dataclasses(function, tmp_path):
    (tmp_path / "helper.py").write_text("VALUE = 0.75")
    spec = function(
        """
        from __future__ import annotations
        from dataclasses import dataclass
        import helper

        @dataclass
        class Judge:
            value: float = helper.VALUE
            def f(self, sample):
                return self.value

        f = Judge().f
        """
    )
    assert tasks(spec, "a")[0] == [0.75]


@pytest.mark.parametrize(
    ("source", "name", "reason"),
    [
        ("def f(sample): return 1", "g", "no function 'g'"),
        ("def score(sample): return 1", "scor", "did you mean 'score'"),
        ("def f(sample) return 1", "f", "SyntaxError"),
        ("import no_such_package", "f", "No module named 'no_such_package'"),
        ("1 / 0", "f", "ZeroDivisionError"),
        ("import sys; sys.exit()", "f", "SystemExit"),
        ("import os; os._exit(3)", "f", "ended its process"),
        ("f = 3", "f", "no function 'f'"),
        ("def f(): return 1", "f", "expected one, named `sample`"),
        ("def f(response): return 1", "f", r"its parameters are \(response\)"),
        ("def f(sample, gold): return 1", "f", r"its parameters are \(sample, gold\)"),
    ],
)
def test_what_cannot_be_loaded_is_one_error_at_the_start(function, source, name, reason):
    spec = function(source, name)
    with pytest.raises(UserError, match=reason) as caught:
        check_loads(spec)
    assert str(caught.value).startswith(f"reward.custom={spec}")


def test_a_missing_file_and_a_missing_entry_point_are_named(tmp_path):
    with pytest.raises(UserError, match="no file .*nothing.py"):
        RewardScorer(custom=f"{tmp_path}/nothing.py:f")
    with pytest.raises(UserError, match="length_judge.*entry point"):
        RewardScorer(custom="length_judge")


def test_an_installed_entry_point_is_found_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "judge_package.py").write_text("def judge(sample): return 0.5")
    metadata = tmp_path / "judge_package-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: judge-package\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[mixed_r1_ray.rewards]\njudge = judge_package:judge\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert tasks("judge", "a")[0] == [0.5]


def test_an_unknown_custom_type_is_told_its_neighbour():
    with pytest.raises(ValueError, match="'matchin'; did you mean 'matching'"):
        RewardScorer(custom_types=("matchin",))


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "hanging in C"])
def test_no_process_outlives_a_parent_that_was_killed(function, tmp_path, busy):
    pid_file = tmp_path / "pid"
    hang = "import re; re.match('(a+)+$', 'a' * 64 + 'b')" if busy else "pass"
    spec = function(
        f"""
        import os, pathlib
        def f(sample):
            pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid()))
            {hang}
            return 1
        """
    )
    parent_code = f"""
import time
from mixed_r1_ray.rewards import RewardSample, RewardScorer
scorer = RewardScorer(custom={spec!r}, custom_timeout_s=600)
scorer.score([RewardSample("custom", "", "g")])
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", parent_code])
    try:
        deadline = time.monotonic() + 30
        while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        child = int(pid_file.read_text())
        assert is_running(child)
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    assert wait_until_gone(child)


def test_a_scorer_that_nobody_closed_ends_its_process(function, tmp_path):
    spec = function(
        "import os, pathlib\n"
        f"def f(sample):\n    return pathlib.Path({str(tmp_path)!r}, 'pid').write_text(str(os.getpid()))"
    )
    scorer = RewardScorer(custom=spec)
    scorer.score(samples("a"))
    del scorer
    assert wait_until_gone(int((tmp_path / "pid").read_text()))
