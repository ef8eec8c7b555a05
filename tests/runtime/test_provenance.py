"""What a run ran on."""

from __future__ import annotations

import pytest

from mixed_r1_ray.runtime.provenance import nvidia_driver


@pytest.mark.parametrize(
    ("script", "driver"),
    [
        ("printf '580.65.06\\n580.65.06\\n'", "580.65.06"),
        ("echo '[N/A]'", None),
        ("true", None),
        ("echo 'NVIDIA-SMI has failed'; exit 9", None),
    ],
)
def test_the_nvidia_driver_is_what_nvidia_smi_tells(monkeypatch, tmp_path, script, driver):
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert nvidia_driver() == driver


def test_a_machine_without_nvidia_smi_has_none(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvidia_driver() is None
