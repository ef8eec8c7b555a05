"""Ray puts actors where the plan says, and those that share a GPU on the same one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_two_nodes_get_what_the_plan_says():
    program = Path(__file__).with_name("two_node_cluster.py")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    result = json.loads(done.stdout.splitlines()[-1])
    found = {name: [tuple(map(str, where)) for where in pool] for name, pool in result["found"].items()}
    assert {name: [node for node, _ in pool] for name, pool in found.items()} == result["planned"]
    engines, learners = found["rollout"], found["learner"]
    assert len(set(engines)) == 3 and engines == learners  # (node, GPU) of each: its own, shared with one learner
    assert found["reference"] == engines[:1]
    assert {node for node, _ in engines} == {node for node, _ in found["data"] + found["reward"] + engines}
    busy, small = result["refused"]
    assert "the cluster did not grant" in busy and "3 GPUs needed, 1 free" in busy
    assert small == "cluster.nodes=3, but Ray has 2; wait for the others to join"
