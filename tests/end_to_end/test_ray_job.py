"""`ray job submit` to a cluster that is already there: the way it is used on many machines, here with one node."""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_runs import ROOT, START_S, TINY, end_marked_processes, marked_processes, openmp_waits, run_environment

pytestmark = pytest.mark.more_runs
RAY = str(Path(sys.executable).with_name("ray"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def head() -> Iterator[tuple[str, dict[str, str]]]:
    """A head node on 127.0.0.1: the address of its job server, and the environment that may talk to it."""
    mark, job_server = uuid.uuid4().hex, f"http://127.0.0.1:{(port := free_port())}"
    environment = run_environment(mark) | {
        "PATH": f"{Path(RAY).parent}:{run_environment(mark)['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    session = tempfile.mkdtemp(prefix="ray_")  # short: the paths of Unix sockets must stay below 108 characters
    command = [RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={free_port()}"]
    command += ["--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={port}"]
    command += [f"--temp-dir={session}", "--num-cpus=2", "--object-store-memory=500000000", "--disable-usage-stats"]
    with open(f"{session}/start.log", "wb") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _await_job_server(job_server, environment, process, Path(session, "start.log"))
        yield job_server, environment
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            pass
        end_marked_processes(mark)
        shutil.rmtree(session, ignore_errors=True)


def _await_job_server(address: str, environment: dict[str, str], process: subprocess.Popen, log: Path) -> None:
    """Returns when a job can be submitted: the server answers before the node's agent, which runs jobs, is there."""
    deadline = time.monotonic() + START_S
    nothing = [RAY, "job", "submit", "--address", address, "--", "true"]
    while subprocess.run(nothing, env=environment, capture_output=True, timeout=START_S).returncode:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
        time.sleep(1)


def test_submitted_job_trains_on_the_running_cluster_and_leaves_it_running(head, cache, tmp_path):
    address, environment = head
    command = [RAY, "job", "submit", "--address", address, "--", "python", "-m", "mixed_r1_ray.main", "conf=quickstart"]
    command += [*TINY, "run.max_steps=2", f"run.dir={tmp_path}", "run.name=job", f"tiny.cache_dir={cache}"]
    log, waits = tmp_path / "job.log", {}
    with log.open("wb") as output:
        job = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 2 * START_S
    while job.poll() is None and time.monotonic() < deadline:
        waits |= openmp_waits(marked_processes(environment["MIXED_R1_RAY_TEST_RUN"]))
        time.sleep(1)
    said = log.read_text()
    assert job.poll() == 0, said[-6000:]
    assert "succeeded" in said
    lines = [json.loads(line) for line in (tmp_path / "job" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "reward/mean" in line] == [1, 2]
    assert (tmp_path / "job" / "report.html").exists()
    assert any("gcs_server" in command for command in marked_processes(environment["MIXED_R1_RAY_TEST_RUN"]).values())
    _await_no_actors(environment["MIXED_R1_RAY_TEST_RUN"])
    # The nodes were started without: what Ray's workers have is what the driver asked for.
    of_actors = {command: policy for command, policy in waits.items() if "Worker." in command}
    for role in ("RolloutWorker", "LearnerWorker", "ReferenceWorker", "DataWorker"):
        assert any(role in command for command in of_actors), (role, waits)
    assert set(of_actors.values()) == {("PASSIVE", "2000")}, of_actors


def _await_no_actors(mark: str, timeout_s: float = 60.0) -> None:
    """The job's actors end with it, though the cluster stays."""
    deadline = time.monotonic() + timeout_s
    while left := [command for command in marked_processes(mark).values() if "Worker." in command]:
        assert time.monotonic() < deadline, left
        time.sleep(0.5)
