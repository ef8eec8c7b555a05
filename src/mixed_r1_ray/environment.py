"""Environment variables that OpenMP, Ray, torch and vLLM read when they are loaded; so they are set before any of them is."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixed_r1_ray.config import Config

# How threads of an OpenMP team wait for each other (choice): they spin 2,000 times, some 80 us, and sleep. Left alone, libgomp
# (torch's) spins for some 8 ms at each barrier, and libomp for 200, on cores that others want: docs/benchmarks.md.
WAITS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "2000"}
SAY_HOW_TO_WAIT = (*WAITS, "KMP_BLOCKTIME")
# Inherited by every process of a cluster that is started here.
LOCAL_CLUSTER = {
    # Nothing of it is reachable from outside.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # without it Ray turns 127.0.0.1 into the machine's outer address
    "GLOO_SOCKET_IFNAME": "lo",
    "VLLM_HOST_IP": "127.0.0.1",
    "RAY_task_events_report_interval_ms": "0",  # what each task did is kept for a dashboard, and there is none
    "RAY_worker_niceness": "0",  # Ray's default of 15 starves actors wherever the machine does anything else
}
QUIET = {
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TRANSFORMERS_VERBOSITY": "error",
}


def settle_waits() -> None:
    """Sets it, unless the user says how to wait. The package calls it when it is imported, so before it loads OpenMP."""
    if not any(name in os.environ for name in SAY_HOW_TO_WAIT):
        os.environ.update(WAITS)


def joining(address: str) -> dict[str, Any]:
    """Arguments of `ray.init` at a cluster that is there: its workers inherit nothing, and get torch before this package."""
    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")  # a submitted job may name the same variables, as they are here
    own = {name: os.environ[name] for name in SAY_HOW_TO_WAIT if name in os.environ}
    return {"address": address, "runtime_env": {"env_vars": own}}


def cluster_address(config: Config) -> str | None:
    """The Ray cluster to join; None where one is to be started here."""
    return config.cluster.address or os.environ.get("RAY_ADDRESS")


def prepare_environment(config: Config) -> None:
    """Sets what is not set yet. Call it before Ray is imported."""
    settings = QUIET if cluster_address(config) else QUIET | LOCAL_CLUSTER
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    programs = str(Path(sys.executable).parent)  # torch looks for ninja on the PATH
    if programs not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([programs, os.environ.get("PATH", "")])
