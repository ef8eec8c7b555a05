"""The quickstart as a job on a cluster of three nodes, each with its own address, that ask for a token."""

from __future__ import annotations

import json
import subprocess
import time

import pytest
from namespaces import NamespacedCluster, namespaced_cluster
from real_runs import ROOT, START_S, TINY

pytestmark = pytest.mark.slow
ACTORS = ("RolloutWorker", "LearnerWorker", "RewardWorker")
# One logical CPU a node: of 0.9, 0.9 and 0.6 no two fit together.
APART = ("rollout.cpus_per_worker=0.9", "learner.cpus_per_worker=0.9", "reward.cpus_per_worker=0.6",
         "data.cpus_per_worker=0.05", "reference.cpus_per_worker=0.05")  # fmt: skip
# Of 0.9, 0.55 and 0.55 neither.
TWO_LEARNERS = ("rollout.cpus_per_worker=0.9", "learner.num_workers=2", "learner.cpus_per_worker=0.55",
                "reward.cpus_per_worker=0.1", "data.cpus_per_worker=0.05",
                "reference.cpus_per_worker=0.05")  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with namespaced_cluster(tmp_path_factory.mktemp("nodes")) as cluster:
        yield cluster


def submit(cluster: NamespacedCluster, folder, cache, *settings: str) -> dict[str, set[str]]:
    """Runs a job by jobs/submit.sh to its good end; returns where each kind of actor lived."""
    words = ["bash", "jobs/submit.sh", "conf=quickstart", *TINY, "run.max_steps=3", f"tiny.cache_dir={cache}"]
    words += [f"run.dir={folder}", "run.name=job", *settings]
    places: dict[str, set[str]] = {actor: set() for actor in ACTORS}
    with (folder / "job.log").open("w+") as log:
        job = subprocess.Popen(
            cluster.nodes[0].command(*words), env=cluster.environment, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + 2 * START_S
        while job.poll() is None and time.monotonic() < deadline:
            for actor in ACTORS:
                places[actor] |= cluster.places(actor)
            time.sleep(0.5)
        log.seek(0)
        assert job.poll() == 0, log.read()[-6000:]
    return places


def steps(folder) -> list[int]:
    lines = [json.loads(line) for line in (folder / "job" / "metrics.jsonl").read_text().splitlines()]
    assert max(line["mismatch/logprob_abs_max"] for line in lines if "reward/mean" in line) <= 1e-4
    return [line["step"] for line in lines if "reward/mean" in line]


def test_engine_learner_and_rewards_work_on_three_different_nodes(cluster, cache, tmp_path):
    places = submit(cluster, tmp_path, cache, *APART)
    assert steps(tmp_path) == [1, 2, 3]
    assert sorted(map(len, places.values())) == [1, 1, 1], places
    assert len(set.union(*places.values())) == 3, places


def test_learner_ranks_on_two_nodes_train_one_policy(cluster, cache, tmp_path):
    places = submit(cluster, tmp_path, cache, *TWO_LEARNERS)
    assert steps(tmp_path) == [1, 2, 3]
    assert len(places["LearnerWorker"]) == 2 and not places["LearnerWorker"] & places["RolloutWorker"], places


def test_a_job_that_is_stopped_finishes_its_step_and_writes_a_checkpoint(cluster, cache, tmp_path):
    words = ["bash", "jobs/submit.sh", "conf=quickstart", *TINY, *APART, "run.max_steps=1000"]
    words += [f"tiny.cache_dir={cache}", f"run.dir={tmp_path}", "run.name=job"]
    inside = {"env": cluster.environment | {"SUBMIT": "--no-wait --submission-id=stopped"}, "cwd": ROOT}
    subprocess.run(cluster.nodes[0].command(*words), check=True, timeout=START_S, **inside)
    metrics, deadline = tmp_path / "job" / "metrics.jsonl", time.monotonic() + START_S
    while not (metrics.exists() and "reward/mean" in metrics.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    stop = cluster.nodes[0].command("ray", "job", "stop", "stopped", "--address=http://127.0.0.1:8265")
    authorised = cluster.environment | {"RAY_AUTH_MODE": "token"}
    subprocess.run(stop, env=authorised, check=True, timeout=START_S, capture_output=True)
    last = steps(tmp_path)[-1]
    assert (tmp_path / "job" / "checkpoints" / "latest").resolve().name == f"step_{last:06d}"


def test_nobody_is_let_in_without_the_token(cluster):
    head = cluster.nodes[0]
    wrong = cluster.environment | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    jobs, status = ("job", "list", "--address=http://127.0.0.1:8265"), ("status", f"--address={head.address}:6379")
    for words in (jobs, status):
        done = subprocess.run(head.command("ray", *words), env=wrong, capture_output=True, text=True, timeout=START_S)
        assert done.returncode != 0 and "oken" in done.stdout + done.stderr, done
