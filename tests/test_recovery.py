"""The way back to the last checkpoint: when it is taken, how often, and on which nodes; with stand-ins for the actors."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from mixed_r1_ray import recovery as module
from mixed_r1_ray.config import Config
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.placement import Node, place
from mixed_r1_ray.cluster_plan import make_plan
from mixed_r1_ray.recovery import Recovery
from mixed_r1_ray.remote import ActorDied
from mixed_r1_ray.runtime.run_dir import RunDir

DIED = ActorDied("learner ranks 0-0 updating at step 3: ActorDiedError")


@dataclass
class House:
    """What Recovery starts and ends. script: what each attempt does, by turns: the steps that it finishes, then how it ends."""

    script: list[tuple[int, Exception | None]]
    nodes: list[Node]
    started: list[Config] = field(default_factory=list)
    resumed: list[bool] = field(default_factory=list)
    ended: int = 0
    warnings: list[str] = field(default_factory=list)
    last_step: int = 0
    first_steps: list[int] = field(default_factory=list)

    def create_actors(self, config, where, *_):
        self.started.append(config)
        return self

    def end(self):
        self.ended += 1

    def start_parts(self, config, actors, splits, run_dir, journal):
        self.resumed.append(run_dir.resumed)
        if self.script[0][0] < 0:
            raise self.script.pop(0)[1]
        self.last_step = self.last_step // 2 * 2  # a checkpoint every other step
        self.first_steps.append(self.last_step + 1)
        return SimpleNamespace(first_step=self.last_step + 1)

    def train(self, config, parts):
        steps, error = self.script.pop(0)
        self.last_step += steps
        if error:
            raise error

    def warn(self, text):
        self.warnings.append(text)

    def say(self, text):
        pass


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs a script on nodes a and b; `nodes` are those that are there after the first failure."""

    def run(script, nodes=("a", "b"), resumed=False, **cluster) -> House:
        config = Config()
        config.rollout.num_workers, config.rollout.cpus_per_worker = 2, 0.9
        config.learner.cpus_per_worker = config.reward.cpus_per_worker = config.data.cpus_per_worker = 0.01
        config.reference.cpus_per_worker = 0.01
        for key, value in cluster.items():
            setattr(config.cluster, key, value)
        made = {name: Node(name, 1.0, 0.0, ray_id=f"id-{name}") for name in "abc"}
        house = House(list(script), [made[name] for name in nodes])
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        for name in ("create_actors", "start_parts"):
            monkeypatch.setattr(module, name, getattr(house, name))
        monkeypatch.setattr(module, "Watchdog", lambda *_: SimpleNamespace(look=None))
        monkeypatch.setattr(module, "ray_nodes", lambda config: tuple(house.nodes))
        monkeypatch.setattr(module, "preflight", lambda config, say: place(make_plan(config), house.nodes))
        where = place(make_plan(config), [made["a"], made["b"]])
        house.run = lambda: Recovery(config, {}, RunDir(tmp_path, resumed, (), None), house).run(where, house.train)
        return house

    return run


def test_a_run_without_failures_starts_once(run):
    house = run([(5, None)])
    house.run()
    assert len(house.started) == 1 and house.ended == 0 and house.resumed == [False] and house.warnings == []


def test_after_a_failure_all_actors_are_ended_and_the_last_checkpoint_is_continued(run):
    house = run([(3, DIED), (4, None)])
    house.run()
    assert house.ended == 1 and house.resumed == [False, True] and house.first_steps == [1, 3]
    assert len(house.warnings) == 1 and str(DIED) in house.warnings[0] and "last checkpoint" in house.warnings[0]


def test_failures_with_steps_in_between_may_be_any_number(run):
    house = run([(3, DIED)] * 8 + [(1, None)], max_restarts=2)
    house.run()
    assert house.ended == 8


def test_failures_in_a_row_without_a_step_stop_the_run(run):
    house = run([(3, DIED), (0, DIED), (-1, DIED), (0, DIED)], max_restarts=2)
    with pytest.raises(UserError, match=r"the run failed 3 times in a row \(cluster.max_restarts 2\).*updating at step 3"):
        house.run()
    assert house.ended == 3


def test_starts_that_fail_are_counted_whatever_was_done_before_them(run):
    house = run([(3, DIED), *[(-1, DIED)] * 5], max_restarts=2)
    with pytest.raises(UserError, match=r"the run failed 3 times in a row"):
        house.run()
    assert house.ended == 3


@pytest.mark.parametrize("resumed", [False, True])
def test_a_first_start_that_fails_is_raised_as_it_is(run, resumed):
    house = run([(-1, DIED)], resumed=resumed)
    with pytest.raises(ActorDied):
        house.run()
    assert house.ended == 1 and house.warnings == []


def test_what_the_run_says_of_itself_is_not_tried_again(run):
    house = run([(3, UserError("too many unscored samples"))])
    with pytest.raises(UserError, match="unscored"):
        house.run()
    assert len(house.started) == 1


def test_on_fewer_nodes_the_run_goes_on_with_fewer_engines(run):
    house = run([(3, DIED), (1, None)], nodes=("a",))
    house.run()
    assert [config.rollout.num_workers for config in house.started] == [2, 1]


def test_a_spare_node_takes_the_place_of_the_lost_one(run):
    house = run([(3, DIED), (1, None)], nodes=("a", "c"))
    house.run()
    assert [config.rollout.num_workers for config in house.started] == [2, 2]


def test_a_lost_node_stops_the_run_where_that_is_asked_for(run):
    house = run([(3, DIED)], nodes=("a", "c"), on_node_loss="stop")
    with pytest.raises(UserError, match="node b is lost and cluster.on_node_loss=stop"):
        house.run()


def test_too_few_nodes_for_one_of_each_stop_with_the_sum(run):
    house = run([(3, DIED)], nodes=())
    with pytest.raises(UserError, match="CPUs needed, 0 available"):
        house.run()
