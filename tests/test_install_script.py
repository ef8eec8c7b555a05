"""jobs/install.sh refuses a `.venv` that is not right, in one line, and leaves it as it was."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MARKER = "mixed-r1-ray"


@pytest.fixture
def clone(tmp_path):
    """A copy of what the scripts read, in a folder with a space in its name."""
    folder = tmp_path / "a clone"
    shutil.copytree(ROOT / "jobs", folder / "jobs")
    for name in ("setup.cfg", "pyproject.toml", "requirements.txt", "requirements-cpu.txt"):
        shutil.copy(ROOT / name, folder)
    return folder


def make_venv(folder: Path) -> Path:
    venv.create(folder / ".venv", symlinks=True, with_pip=False)
    return folder / ".venv"


def a_file(clone):
    (clone / ".venv").touch()


def an_empty_folder(clone):
    (clone / ".venv").mkdir()


def a_python_that_is_gone(clone):
    python = make_venv(clone) / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python")


def another_python(clone):
    python = make_venv(clone) / "bin" / "python"
    python.unlink()
    python.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.9.1\n[ -z "$2" ]\n')
    python.chmod(0o755)


def somebody_elses(clone):
    make_venv(clone)


def made_in_another_folder(clone):
    (make_venv(clone) / MARKER).write_text("/some/where/else\n")


def without_pip(clone):
    (make_venv(clone) / MARKER).write_text(f"{clone}\n")


def snapshot(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.lstat().st_mtime_ns) for path in (folder / ".venv").rglob("*"))


@pytest.mark.parametrize("script", ["quickstart", "test"])
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (a_file, "its bin/python does not run"),
        (an_empty_folder, "its bin/python does not run"),
        (a_python_that_is_gone, "its bin/python does not run"),
        (another_python, ".venv has Python 3.9.1, 3.11 or 3.12 is needed"),
        (somebody_elses, ".venv was not made by this script"),
        (made_in_another_folder, ".venv was made for /some/where/else"),
        (without_pip, "it has no pip"),
    ],
)
def test_wrong_venv_is_refused_and_left_alone(clone, script, spoil, said):
    spoil(clone)
    before = snapshot(clone)
    done = subprocess.run(
        ["bash", str(clone / "jobs" / f"{script}.sh")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: .venv ") and said in line and "mv .venv .venv.old" in line
    assert snapshot(clone) == before


def test_python_that_was_asked_for_must_be_a_supported_one(clone):
    environment = os.environ | {"PYTHON": "/bin/false"}
    script = ["bash", str(clone / "jobs" / "install.sh")]
    done = subprocess.run(script, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 1 and "PYTHON=/bin/false is not a Python 3.11 or 3.12" in done.stderr
    assert not (clone / ".venv").exists()


def test_missing_compiler_is_told_before_anything_is_downloaded(clone, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "basename", "dirname", "uname", "mkdir", "touch", "rm"):
        (tools / name).symlink_to(shutil.which(name))
    environment = {"PATH": str(tools), "PYTHON": sys.executable}
    script = [shutil.which("bash"), str(clone / "jobs" / "install.sh")]
    done = subprocess.run(script, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 1 and "g++ is missing" in done.stderr.splitlines()[-1]
