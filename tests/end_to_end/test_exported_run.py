"""What a real run exports is served by vLLM with the log-probabilities that transformers gives it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from real_runs import ROOT, run_environment

LIMIT = 1e-4  # nats, float32


@pytest.mark.slow
def test_vllm_serves_an_exported_run_as_transformers_computes_it(plain_run, tmp_path):
    environment = run_environment("export") | {"OMP_NUM_THREADS": "1"}
    out, result = tmp_path / "internvl", tmp_path / "result.json"
    command = [sys.executable, "-m", "mixed_r1_ray.export", str(plain_run.folder), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    session = [sys.executable, str(ROOT / "tests" / "rollout" / "engine_session.py"), str(out), str(result)]
    done = subprocess.run(session, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(result.read_text())["mismatch_initial"] <= LIMIT
