"""A node is cut off while a job trains: the job goes on with what is left, or stops and says why, as configured."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from namespaces import NamespacedCluster, namespaced_cluster
from real_runs import ROOT, START_S, TINY

pytestmark = pytest.mark.slow
FOUND_WITHIN_S = 300.0  # Ray takes a node for dead after five health checks in vain
# One logical CPU a node: each holds an engine, and on two nodes there is no room for the third.
ENGINES = ("rollout.num_workers=3", "rollout.cpus_per_worker=0.6", "learner.cpus_per_worker=0.3",
           "reward.cpus_per_worker=0.1", "data.cpus_per_worker=0.05", "reference.cpus_per_worker=0.05")  # fmt: skip


@pytest.fixture
def cluster(tmp_path_factory):
    with namespaced_cluster(tmp_path_factory.mktemp("nodes")) as cluster:
        yield cluster


def train_and_cut_off(cluster: NamespacedCluster, folder: Path, cache: Path, *settings: str) -> tuple[int, str]:
    """Submits a job and cuts off the last node after its first step; returns the exit code and what was printed."""
    words = ["bash", "jobs/submit.sh", "conf=quickstart", *TINY, *ENGINES, f"tiny.cache_dir={cache}", "data.eval=null"]
    words += [f"run.dir={folder}", "run.name=job", "run.checkpoint_every=1", *settings]
    with (folder / "job.log").open("w+") as log:
        job = subprocess.Popen(
            cluster.nodes[0].command(*words), env=cluster.environment, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
        )
        metrics, deadline = folder / "job" / "metrics.jsonl", time.monotonic() + START_S
        while not (metrics.exists() and metrics.stat().st_size):
            assert job.poll() is None and time.monotonic() < deadline, (folder / "job.log").read_text()[-6000:]
            time.sleep(0.2)
        assert cluster.places("RolloutWorker") == {node.namespace for node in cluster.nodes}
        cluster.cut_off(2)
        code = job.wait(FOUND_WITHIN_S + START_S)
        log.seek(0)
        return code, log.read()


def test_the_run_goes_on_with_what_is_left(cluster, cache, tmp_path):
    code, said = train_and_cut_off(cluster, tmp_path, cache, "run.max_steps=40")
    assert code == 0, said[-6000:]
    assert "is lost, with all actors on it" in said
    lines = [json.loads(line) for line in (tmp_path / "job" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 41))


def test_the_run_stops_with_the_node_named(cluster, cache, tmp_path):
    code, said = train_and_cut_off(cluster, tmp_path, cache, "run.max_steps=1000", "cluster.on_node_loss=stop")
    assert code != 0
    assert f"node {cluster.nodes[2].address}" in said and "cluster.on_node_loss=stop" in said, said[-6000:]
    assert list((tmp_path / "job" / "checkpoints").glob("step_*"))
