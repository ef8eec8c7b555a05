"""Run as a program: a Ray cluster of two nodes that say they have two GPUs each, and where actors come to lie on it."""

from __future__ import annotations

import json
import sys

from mixed_r1_ray.config_load import load_config
from mixed_r1_ray.environment import prepare_environment

CONFIG = load_config(["conf=debug", "rollout.num_workers=3", "learner.num_workers=3", *sys.argv[1:]])
prepare_environment(CONFIG)

import ray  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from mixed_r1_ray import actors, cluster  # noqa: E402
from mixed_r1_ray.errors import UserError  # noqa: E402


@ray.remote
class Where:
    def here(self) -> tuple[str, list[str]]:
        context = ray.get_runtime_context()
        return context.get_node_id(), context.get_accelerator_ids()["GPU"]


def said_by(call, *arguments) -> str | None:
    try:
        call(*arguments)
    except UserError as error:
        return str(error)


def main() -> None:
    options = {"num_cpus": 4, "num_gpus": 2, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    home = {"node_ip_address": "127.0.0.1"}
    nodes = Cluster(initialize_head=True, head_node_args=options | home)
    nodes.add_node(**{name: value for name, value in options.items() if name != "include_dashboard"}, **home)
    ray.init(address=nodes.address, log_to_driver=False)
    try:
        placement = cluster.preflight(CONFIG, print)
        group = actors.reserve(placement)
        names = [role.name for role in placement.plan.roles]
        started = actors.Actors(placement, group, dict.fromkeys(names, Where), dict.fromkeys(names, ()))
        found = {name: ray.get([one.here.remote() for one in started.of(name)], timeout=120) for name in names}
        planned = {name: [placement.node_of(name, n).ray_id for n in range(len(pool))] for name, pool in found.items()}
        actors.RESERVE_DEADLINE_S = 1.0
        waiting = load_config(["conf=debug", "cluster.nodes=3"])
        refused = [said_by(actors.reserve, placement), said_by(cluster.preflight, waiting, print)]
        print(json.dumps({"found": found, "planned": planned, "refused": refused}))
    finally:
        ray.shutdown()
        nodes.shutdown()


main()
