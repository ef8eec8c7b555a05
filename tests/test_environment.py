"""What OpenMP is told about waiting, as libgomp itself says it when it is loaded, and that it is told in time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import ray
from ray.runtime_env.runtime_env import _merge_runtime_env

from mixed_r1_ray.cluster import connected
from mixed_r1_ray.config import ClusterConfig, Config
from mixed_r1_ray.data.tasks import ray_for_data
from mixed_r1_ray.environment import settle_waits

ADDRESS = "10.0.0.1:6379"
OWN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
SOURCE = Path(__file__).parents[1] / "src"
COMPUTES = "import mixed_r1_ray.policy.loading, torch; torch.ones(9) @ torch.ones(9)"

def run(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs `code` without the environment's .pth files: one of them imports the package whenever Python starts."""
    inherited = {name: value for name, value in os.environ.items() if name not in OWN}
    path = {"PYTHONPATH": os.pathsep.join([str(SOURCE), sysconfig.get_paths()["purelib"]])}
    command, environment = [sys.executable, "-S", "-c", code], inherited | path | environment
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "own, spins",
    [({}, 2000), ({"OMP_WAIT_POLICY": "ACTIVE"}, 30_000_000_000), ({"OMP_WAIT_POLICY": "PASSIVE"}, 0), ({"GOMP_SPINCOUNT": "7"}, 7)],
    ids=["default", "a policy of one's own", "another", "a count of one's own"],
)
def test_threads_that_wait_soon_sleep_unless_the_user_says_otherwise(own, spins):
    said = run(COMPUTES, OMP_DISPLAY_ENV="VERBOSE", **own).stderr
    assert set(re.findall(r"GOMP_SPINCOUNT = '(\d+)'", said)) == {str(spins)}, said


class Joined(Exception):
    """In place of joining, with what Ray was asked."""


def join_as_a_run():
    return connected(Config(cluster=ClusterConfig(address=ADDRESS)), say=lambda text: None)


@pytest.mark.parametrize("own", [{}, {"OMP_WAIT_POLICY": "ACTIVE", "KMP_BLOCKTIME": "3"}], ids=["default", "one's own"])
@pytest.mark.parametrize("job", [{}, {"MINE": "1", "OMP_WAIT_POLICY": "ACTIVE"}], ids=["a driver", "a submitted job"])
@pytest.mark.parametrize("join", [join_as_a_run, ray_for_data])
def test_workers_of_a_cluster_that_is_there_get_what_the_driver_has(join, job, own, monkeypatch):
    """A job's driver has what the job names; Ray's own merge of both refuses what it takes for a conflict."""

    def init(**arguments):
        raise Joined(arguments)

    monkeypatch.setattr(ray, "init", init)
    for name in (*OWN, "RAY_OVERRIDE_JOB_RUNTIME_ENV"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"RAY_ADDRESS": ADDRESS} | own | job).items():
        monkeypatch.setenv(name, value)
    settle_waits()
    with pytest.raises(Joined) as joined, join():
        pass
    asked = joined.value.args[0]
    override = os.environ.get("RAY_OVERRIDE_JOB_RUNTIME_ENV") == "1"
    merged = _merge_runtime_env({"working_dir": ".", "env_vars": job}, asked["runtime_env"], override)
    assert asked["address"] == ADDRESS
    default = {} if own or job else {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "2000"}
    assert merged == {"working_dir": ".", "env_vars": default | own | job}
