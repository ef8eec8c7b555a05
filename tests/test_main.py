"""The entry point's exit codes and messages. The driver is replaced: what it does is tested elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import types

import pytest

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.main import main


@pytest.fixture
def driver(monkeypatch):
    """A stand-in driver; its `run` may be replaced by a test."""
    module = types.ModuleType("mixed_r1_ray.driver")
    module.seen = []
    module.run = module.seen.append
    monkeypatch.setitem(sys.modules, "mixed_r1_ray.driver", module)
    return module


def raising(error: BaseException):
    def run(config):
        raise error

    return run


def test_run_gets_the_resolved_config(driver):
    assert main(["conf=quickstart", "run.max_steps=2"]) == 0
    assert [config.run.max_steps for config in driver.seen] == [2]


def test_bad_config_is_one_message_and_exit_2(driver, capsys):
    assert main(["conf=quickstart", "rollout.num_worker=2"]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: ") and "rollout.num_workers" in err and "Traceback" not in err
    assert out == "" and driver.seen == []


def test_user_error_of_a_run_is_one_message_and_exit_1(driver, capsys):
    driver.run = raising(UserError("data/train.parquet row 7: no picture"))
    assert main(["conf=quickstart"]) == 1
    assert capsys.readouterr().err == "error: data/train.parquet row 7: no picture\n"


def test_user_error_wrapped_by_ray_shows_its_cause_only(driver, capsys):
    from ray.exceptions import RayTaskError

    cause = UserError("reward worker 0, step 3: timed out")
    driver.run = raising(RayTaskError("score", "remote traceback", cause).as_instanceof_cause())
    assert main(["conf=quickstart"]) == 1
    assert capsys.readouterr().err == "error: reward worker 0, step 3: timed out\n"


def test_bug_keeps_its_traceback_and_exits_1(driver, capsys):
    driver.run = raising(ZeroDivisionError("a bug"))
    assert main(["conf=quickstart"]) == 1
    assert "Traceback" in (err := capsys.readouterr().err) and "ZeroDivisionError: a bug" in err


def test_interrupt_says_how_to_go_on_and_exits_130(driver, capsys):
    driver.run = raising(KeyboardInterrupt())
    assert main(["conf=quickstart", "run.name=my run", "run.resume=never"]) == 130
    err = capsys.readouterr().err
    assert "python -m mixed_r1_ray.main conf=quickstart 'run.name=my run' run.resume=auto" in err
    assert "Traceback" not in err and "run.resume=never" not in err


def test_dry_run_shows_config_and_plan_and_starts_nothing(driver, capsys):
    assert main(["conf=quickstart", "dry_run=true", "cluster.num_cpus=2", "run.seed=12345"]) == 0
    out = capsys.readouterr().out
    assert "seed: 12345" in out and "Placement plan" in out and "can hold it (2 CPUs" in out
    assert driver.seen == []


def test_dry_run_says_what_is_missing_and_ends_as_the_run_would(driver, capsys):
    assert main(["conf=quickstart", "dry_run=true", "cluster.num_cpus=2", "rollout.num_workers=9"]) == 1
    assert "cannot hold it: " in (err := capsys.readouterr().err) and "2 available" in err


def test_dry_run_does_not_judge_a_cluster_by_this_machine(driver, capsys):
    words = ["conf=internvl_8b", "data.train=synthetic", "data.eval=synthetic"]
    assert main([*words, "dry_run=true", "cluster.address=auto"]) == 0
    assert "The cluster at auto was not asked" in capsys.readouterr().out


def test_help_needs_no_conf_and_lists_keys(driver, capsys):
    assert main(["help=true"]) == 0
    out = capsys.readouterr().out
    assert "rollout.num_workers: int >= 1 = 1\n    Number of vLLM engines." in out


def test_module_runs_as_a_program_and_returns_the_code():
    run = [sys.executable, "-m", "mixed_r1_ray.main", "conf=quickstrat"]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "did you mean quickstart" in done.stderr and done.stdout == ""


def test_reader_that_has_gone_ends_it_without_a_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "mixed_r1_ray.main", "help=true"]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, "")
