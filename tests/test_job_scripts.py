"""jobs/: what the scripts run, with which environment, and what they refuse; the Kubernetes manifest."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted([*(ROOT / "jobs").glob("*.sh"), ROOT / "jobs" / "slurm.sbatch", ROOT / ".ci" / "run"])
# Stands for a program: notes its words and some of its environment.
RECORDER = """#!/usr/bin/env bash
{ printf '%s' "${0##*/}"; printf '\\t%s' "$@"; printf '\\n'; } >>"$RECORD"
env | grep -E '^(RAY_|VLLM_HOST|GLOO_|NCCL_)' | sort >>"$RECORD.env"
"""


@pytest.fixture
def tools(tmp_path):
    """A folder at the front of the PATH whose programs are recorded."""
    folder = tmp_path / "tools"
    folder.mkdir()
    return folder


def record(tools: Path, name: str, then: str = "") -> None:
    (tools / name).write_text(RECORDER + then)
    (tools / name).chmod(0o755)


def environment(tools: Path, **more: str) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "GLOO_", "NCCL_"))}
    return plain | {"PATH": f"{tools}:{os.environ['PATH']}", "RECORD": str(tools / "record")} | more


def run(tools: Path, script: str, *words: str, **more: str) -> subprocess.CompletedProcess:
    command = ["bash", str(ROOT / "jobs" / script), *words]
    return subprocess.run(command, env=environment(tools, **more), capture_output=True, text=True, timeout=60)


def recorded(tools: Path) -> list[list[str]]:
    file = tools / "record"
    return [line.split("\t") for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_well_formed(script):
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True).returncode == 0
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed; bash -n found nothing")
    done = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_head_makes_a_token_for_its_owner_alone_and_starts_ray_with_it(tools, tmp_path):
    record(tools, "ray")
    token = tmp_path / "home" / "token"
    done = run(tools, "multi_node.sh", "head", "127.0.0.1", "--num-cpus=3", RAY_AUTH_TOKEN_PATH=str(token))
    assert done.returncode == 0, done.stderr
    assert token.stat().st_mode & 0o777 == 0o600 and len(token.read_text().strip()) == 64
    (words,) = recorded(tools)
    assert words[:3] == ["ray", "start", "--head"] and words[-1] == "--num-cpus=3"
    assert {"--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"} <= set(words)
    said = (tools / "record.env").read_text().splitlines()
    wanted = {"RAY_AUTH_MODE=token", f"RAY_AUTH_TOKEN_PATH={token}", "VLLM_HOST_IP=127.0.0.1", "GLOO_SOCKET_IFNAME=lo"}
    assert wanted <= set(said)
    assert token.read_text().strip() not in done.stdout + done.stderr


def test_a_token_that_is_there_is_kept_and_tightened(tools, tmp_path):
    record(tools, "ray")
    token = tmp_path / "token"
    token.write_text("kept\n")
    token.chmod(0o644)
    assert run(tools, "multi_node.sh", "head", "127.0.0.1", RAY_AUTH_TOKEN_PATH=str(token)).returncode == 0
    assert token.read_text() == "kept\n" and token.stat().st_mode & 0o777 == 0o600


def test_worker_without_the_token_and_an_address_that_is_not_here_are_refused(tools, tmp_path):
    record(tools, "ray")
    missing = run(tools, "multi_node.sh", "worker", "10.0.0.1", "127.0.0.1", RAY_AUTH_TOKEN_PATH=str(tmp_path / "no"))
    assert missing.returncode == 2 and f"scp 10.0.0.1:{tmp_path / 'no'}" in missing.stderr
    (tmp_path / "token").write_text("t\n")
    there = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    wrong = run(tools, "multi_node.sh", "worker", "10.0.0.1", "203.0.113.9", **there)
    assert wrong.returncode == 2 and "no interface of this machine has the address 203.0.113.9" in wrong.stderr
    assert recorded(tools) == []
    assert run(tools, "multi_node.sh", "worker", "10.0.0.1", "127.0.0.1", **there).returncode == 0
    assert recorded(tools)[0][:3] == ["ray", "start", "--address=10.0.0.1:6379"]


@pytest.mark.parametrize("words", [[], ["heads"], ["head"], ["worker", "10.0.0.1"]])
def test_words_that_mean_nothing_get_the_usage(tools, words):
    done = run(tools, "multi_node.sh", *words)
    assert done.returncode == 2 and "multi_node.sh worker HEAD ADDRESS" in done.stderr


def test_submit_sends_the_checkout_without_what_is_large_and_forwards_what_is_named(tools):
    record(tools, "ray")
    done = run(
        tools, "submit.sh", "conf=internvl_8b", "run.name=a b",
        HF_HOME="/shared/hf", MINE="1", FORWARD="MINE", SUBMIT="--no-wait --submission-id=x", WANDB_API_KEY="sec" * 9,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (words,) = recorded(tools)
    assert words[:5] == ["ray", "job", "submit", "--no-wait", "--submission-id=x"]
    assert words[-5:] == ["python", "-m", "mixed_r1_ray.main", "conf=internvl_8b", "run.name=a b"]
    sent = json.loads(words[words.index("--runtime-env-json") + 1])
    assert sent["env_vars"].items() >= {"HF_HOME": "/shared/hf", "MINE": "1"}.items()
    assert sent["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == "600"
    assert {"/runs", "/.venv", "*.safetensors"} <= set(sent["excludes"]) and sent["py_modules"] == ["src/mixed_r1_ray"]
    assert "sec" * 9 not in " ".join(words)
    assert "RAY_AUTH_MODE=token" in (tools / "record.env").read_text()


def test_what_submit_leaves_out_is_no_part_of_the_program(tools):
    from ray._private.runtime_env.packaging import _get_excludes

    record(tools, "ray")
    run(tools, "submit.sh", "conf=quickstart")
    words = recorded(tools)[0]
    excludes = json.loads(words[words.index("--runtime-env-json") + 1])["excludes"]
    for root, folders in ((ROOT, ["src", "conf", "jobs"]), (ROOT / "src" / "mixed_r1_ray", ["."])):
        left_out = _get_excludes(root, excludes)
        files = [path for folder in folders for path in (root / folder).rglob("*") if path.is_file()]
        assert len(files) > 10 and not [path for path in files if left_out(path)]
    assert _get_excludes(ROOT, excludes)(ROOT / "runs" / "one" / "metrics.jsonl")


def test_submit_refuses_to_forward_a_secret(tools):
    record(tools, "ray")
    done = run(tools, "submit.sh", "conf=internvl_8b", FORWARD="WANDB_API_KEY", WANDB_API_KEY="x")
    assert done.returncode != 0 and "WANDB_API_KEY would be shown" in done.stderr
    assert recorded(tools) == []


@pytest.fixture
def slurm(tools, tmp_path):
    """A Slurm of two nodes that records; srun runs hostname and nothing else."""
    record(tools, "scontrol", 'if [[ $1 == show ]]; then printf "a1\\na2\\n"; fi\n')
    record(tools, "srun", 'if [[ $* == *hostname* ]]; then echo "10.0.0.${4: -1} fe80::1"; else exec sleep 60; fi\n')
    record(tools, "ray", 'echo " 1 node_x"; echo " 1 node_y"\n')
    home = tmp_path / "home"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "token-42").write_text("t\n")
    (tmp_path / "checkout").mkdir()
    return {"HOME": str(home), "SLURM_SUBMIT_DIR": str(tmp_path / "checkout"), "SLURM_JOB_ID": "42",
            "SLURM_JOB_NODELIST": "a[1-2]"}  # fmt: skip


def test_slurm_starts_a_head_and_workers_and_the_driver_beside_the_head(tools, slurm):
    record(tools, "python", "exit 3\n")
    done = run(tools, "slurm.sbatch", "conf=internvl_8b", **slurm)
    assert done.returncode == 3, done.stderr
    calls = recorded(tools)
    started = sorted(" ".join(words[5:9]) for words in calls if "jobs/multi_node.sh" in words)
    assert started == ["bash jobs/multi_node.sh head 10.0.0.1", "bash jobs/multi_node.sh worker 10.0.0.1"]
    (driver,) = [words for words in calls if words[0] == "python"]
    assert driver[1:] == ["-m", "mixed_r1_ray.main", "conf=internvl_8b", "run.resume=auto"]
    assert "RAY_ADDRESS=10.0.0.1:20042" in (tools / "record.env").read_text()
    assert not Path(slurm["HOME"], ".ray", "token-42").exists()
    assert not any(words[:2] == ["scontrol", "requeue"] for words in calls)


def test_slurm_passes_the_warning_on_waits_for_the_checkpoint_and_queues_again(tools, slurm):
    finishing = "trap 'sleep 0.3; echo checkpoint >>\"$RECORD\"; exit 130' TERM\ntouch \"$RECORD.up\"\n"
    record(tools, "python", finishing + "while true; do sleep 0.05; done\n")
    command = ["bash", str(ROOT / "jobs" / "slurm.sbatch"), "conf=internvl_8b"]
    process = subprocess.Popen(command, env=environment(tools, **slurm), stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not (tools / "record.up").exists():
        assert time.monotonic() < deadline and process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    assert recorded(tools)[-2:] == [["checkpoint"], ["scontrol", "requeue", "42"]]


# The RayJob resource's fields (KubeRay 1.5, ray.io/v1) that the manifest may use: name -> type.
SPEC = {
    "entrypoint": str, "runtimeEnvYAML": str, "backoffLimit": int, "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int, "activeDeadlineSeconds": int, "submissionMode": str, "suspend": bool,
    "rayClusterSpec": dict,
}  # fmt: skip
CLUSTER = {"rayVersion": str, "authOptions": dict, "headGroupSpec": dict, "workerGroupSpecs": list}
HEAD = {"rayStartParams": dict, "template": dict, "serviceType": str}
WORKER = {"groupName": str, "rayStartParams": dict, "template": dict}
WORKER |= dict.fromkeys(("replicas", "minReplicas", "maxReplicas"), int)


@pytest.fixture(scope="module")
def rayjob() -> dict:
    return yaml.safe_load((ROOT / "jobs" / "rayjob.yaml").read_text())


def test_rayjob_has_only_fields_that_the_resource_has_of_their_types(rayjob):
    assert (rayjob["apiVersion"], rayjob["kind"]) == ("ray.io/v1", "RayJob")
    cluster = rayjob["spec"]["rayClusterSpec"]
    parts = [(rayjob["spec"], SPEC), (cluster, CLUSTER), (cluster["headGroupSpec"], HEAD)]
    parts += [(group, WORKER) for group in cluster["workerGroupSpecs"]]
    for part, known in parts:
        assert {name: type(value) for name, value in part.items()}.items() <= known.items()
    for group in cluster["workerGroupSpecs"]:
        assert {"groupName", "minReplicas", "maxReplicas", "template"} <= group.keys()  # required
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def test_rayjob_asks_for_a_token_and_keeps_secrets_out_of_the_job(rayjob):
    cluster = rayjob["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert "runtimeEnvYAML" not in rayjob["spec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        for variable in container["env"]:
            secret = any(word in variable["name"] for word in ("KEY", "TOKEN"))
            assert secret == ("secretKeyRef" in variable.get("valueFrom", {})), variable
        volumes = {volume["name"] for volume in group["template"]["spec"]["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_rayjob_runs_the_pinned_ray_and_a_configuration_that_is_there_and_that_its_cluster_can_hold(rayjob):
    from mixed_r1_ray.cluster_plan import make_plan
    from mixed_r1_ray.config_load import load_config

    cluster = rayjob["spec"]["rayClusterSpec"]
    assert f"ray[default]=={cluster['rayVersion']}" in (ROOT / "requirements.txt").read_text()
    words = rayjob["spec"]["entrypoint"].split()
    assert words[:3] == ["python", "-m", "mixed_r1_ray.main"]
    limits = [
        (group.get("replicas", 1), group["template"]["spec"]["containers"][0]["resources"]["limits"])
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
    ]
    available = {
        "CPU": sum(count * float(limit["cpu"]) for count, limit in limits),
        "GPU": sum(count * float(limit.get("nvidia.com/gpu", 0)) for count, limit in limits),
    }
    make_plan(load_config(words[3:])).check(available)
