"""Three Ray nodes on one machine: network namespaces with an address each, joined by a bridge that leads nowhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from real_runs import ROOT, START_S, end_marked_processes, marked_processes, run_environment


@dataclass(frozen=True)
class Node:
    """A namespace; its first is the head's, which also holds the bridge."""

    namespace: str
    address: str

    @property
    def inode(self) -> int:
        """What /proc/PID/ns/net of its processes shows."""
        return Path("/run/netns", self.namespace).stat().st_ino

    def command(self, *words: str) -> list[str]:
        """`words`, run inside."""
        return ["ip", "netns", "exec", self.namespace, *words]


@dataclass(frozen=True)
class NamespacedCluster:
    """A running Ray cluster of such nodes, made by jobs/multi_node.sh."""

    nodes: Sequence[Node]
    environment: dict[str, str]
    mark: str

    def cut_off(self, number: int) -> None:
        """Nothing reaches a node any more, nor leaves it; it is not the head."""
        _ip(self.nodes[0].namespace, f"link set port{number} down")

    def places(self, actor: str) -> set[str]:
        """Namespaces in which processes of an actor class live now."""
        by_inode = {node.inode: node.namespace for node in self.nodes}
        found = set()
        for pid, command in marked_processes(self.mark).items():
            if command.startswith(f"ray::{actor}"):
                try:
                    found.add(by_inode[os.stat(f"/proc/{pid}/ns/net").st_ino])
                except OSError:  # ended meanwhile
                    continue
        return found


@contextmanager
def namespaces(count: int = 3) -> Iterator[list[Node]]:
    """`count` joined namespaces. Skips the test where this machine does not let us make them."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("making network namespaces needs root and iproute2")
    mark = uuid.uuid4().hex[:6]
    nodes = [Node(f"mixed-{mark}-{number}", f"10.77.0.{number + 1}") for number in range(count)]
    head = nodes[0].namespace
    with ExitStack() as stack:
        for node in nodes:
            done = subprocess.run(["ip", "netns", "add", node.namespace], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no network namespace can be made here: {done.stderr.strip()}")
            stack.callback(subprocess.run, ["ip", "netns", "delete", node.namespace], check=False)
            _ip(node.namespace, "link set lo up")
        _ip(head, "link add bridge type bridge")
        _ip(head, f"address add {nodes[0].address}/24 dev bridge")
        _ip(head, "link set bridge up")
        for number, node in enumerate(nodes[1:], start=1):
            _ip(head, f"link add port{number} type veth peer name outside netns {node.namespace}")
            _ip(head, f"link set port{number} master bridge up")
            _ip(node.namespace, f"address add {node.address}/24 dev outside")
            _ip(node.namespace, "link set outside up")
        yield nodes


@contextmanager
def namespaced_cluster(folder: Path, num_cpus: int = 1) -> Iterator[NamespacedCluster]:
    """A head and two workers with token authentication, `num_cpus` logical CPUs each; folder: for token and logs."""
    mark = uuid.uuid4().hex
    inherited = run_environment(mark)
    environment = inherited | {
        "PATH": f"{Path(sys.executable).parent}:{inherited['PATH']}",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
    }
    sessions: list[str] = []
    with namespaces() as nodes:
        try:
            for number, node in enumerate(nodes):
                role = ["head"] if number == 0 else ["worker", nodes[0].address]
                sessions.append(tempfile.mkdtemp(prefix="ray_"))  # short: paths of Unix sockets are
                options = ["--block", f"--num-cpus={num_cpus}", "--object-store-memory=200000000"]
                command = node.command("bash", "jobs/multi_node.sh", *role, node.address, *options)
                with (folder / f"node{number}.log").open("wb") as log:
                    process = subprocess.Popen(
                        [*command, f"--temp-dir={sessions[-1]}"],
                        env=environment, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                    )  # fmt: skip
                _await_nodes(nodes, number + 1, environment, process, folder / f"node{number}.log")
            yield NamespacedCluster(nodes, environment, mark)
        finally:
            end_marked_processes(mark)
            for session in sessions:
                shutil.rmtree(session, ignore_errors=True)


def _await_nodes(nodes, count: int, environment: dict[str, str], process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_S
    status = nodes[0].command("ray", "status", f"--address={nodes[0].address}:6379")
    authorised = environment | {"RAY_AUTH_MODE": "token"}
    while True:
        said = subprocess.run(status, env=authorised, capture_output=True, text=True, timeout=START_S).stdout
        if said.count(" node_") >= count:
            return
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:] + said
        time.sleep(1)


def _ip(namespace: str, words: str) -> None:
    done = subprocess.run(["ip", "-n", namespace, *words.split()], capture_output=True, text=True)
    assert done.returncode == 0, f"ip -n {namespace} {words}: {done.stderr}"
