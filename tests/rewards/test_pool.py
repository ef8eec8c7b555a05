"""The reward pool on real Ray: batching, deadlines, and workers that raise, hang and die."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import ray

from mixed_r1_ray.config import Config, RewardConfig
from mixed_r1_ray.environment import prepare_environment
from mixed_r1_ray.errors import UserError
from mixed_r1_ray.rewards.pool import PendingScore, RewardPool
from mixed_r1_ray.types import Group, Prompt, Rollout


@pytest.fixture(scope="module")
def cluster():
    prepare_environment(Config())
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )
    yield
    ray.shutdown()


def actor_class():
    """An actor that does what responses tell it, and logs its calls. Defined inside: sent by value."""

    @ray.remote(num_cpus=0, max_restarts=-1)
    class Obedient:
        def __init__(self, folder: str):
            self.folder = folder
            if os.path.exists(f"{folder}/slow-start"):
                time.sleep(10)

        @ray.method(max_task_retries=-1)
        def ready(self):
            return os.getpid()

        def score(self, prompts, progress, *groups):
            from mixed_r1_ray.types import RewardBreakdown

            for name in ("calls", f"{os.getpid()}.calls"):
                with open(f"{self.folder}/{name}", "a") as file:
                    file.write(" ".join(prompt.prompt_id for prompt in prompts) + "\n")
            for prompt, group in zip(prompts, groups):
                self.obey(group.rollouts[0].text, f"{self.folder}/{prompt.prompt_id}.seen")
            with open(f"{self.folder}/answered", "a") as file:
                file.write("".join(f"{prompt.prompt_id} {os.getpid()}\n" for prompt in prompts))
            return [
                tuple(
                    RewardBreakdown("matching", progress + r.sample_index, 0.0, 0.0, prompt.prompt_id)
                    for r in group.rollouts
                )
                for prompt, group in zip(prompts, groups)
            ]

        def obey(self, text, seen):
            word, _, seconds = text.partition(" ")
            first = not os.path.exists(seen)
            open(seen, "w").close()
            if word == "sleep":
                time.sleep(float(seconds))
            elif word == "die" or word == "die-once" and first:
                os.kill(os.getpid(), signal.SIGKILL)
            elif word == "raise":
                raise ZeroDivisionError("in the reward")
            elif word == "mend":
                raise UserError("mend your configuration")

    return Obedient


@dataclass
class Bench:
    pool: RewardPool
    actors: list
    folder: Path
    warnings: list[str]

    def submit(self, name: str, text: str, samples: int = 2, progress: float = 0.0):
        prompt = Prompt(name, "shapes", "matching", "?", "yes", None, (), None, "…", 3)
        zeros = np.zeros(1, np.float32)
        rollouts = tuple(Rollout(i, zeros, zeros, zeros, text, True) for i in range(samples))
        return self.pool.submit(prompt, ray.put(Group(name, zeros, rollouts)), samples, progress)

    def kill_in_a_batch(self, pid: int) -> None:
        """Kills the process while it scores several groups."""
        calls = self.folder / f"{pid}.calls"
        while not (calls.exists() and any(" " in line for line in calls.read_text().splitlines())):
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)

    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()


@pytest.fixture
def bench(cluster, tmp_path):
    actors = []

    def make(workers: int = 1, timeout_s: float = 20.0, batch_groups: int = 8) -> Bench:
        actors.extend(actor_class().remote(str(tmp_path)) for _ in range(workers))
        ray.get([actor.ready.remote() for actor in actors])
        warnings: list[str] = []
        return Bench(RewardPool(actors, timeout_s, warnings.append, batch_groups), actors, tmp_path, warnings)

    yield make
    for actor in actors:
        ray.kill(actor)


def test_rewards_come_back_to_their_group_in_order_whatever_is_collected_first(bench):
    bench = bench(workers=2)
    pending = {name: bench.submit(name, "go", samples=3, progress=0.5) for name in "abcdef"}
    for name in reversed("abcdef"):
        rewards = bench.pool.collect(pending[name])
        assert [reward.detail for reward in rewards] == [name] * 3
        assert [reward.total for reward in rewards] == [0.5, 1.5, 2.5]


def test_the_first_group_is_scored_at_once_and_those_that_waited_together(bench):
    bench = bench(batch_groups=3)
    pending = [bench.submit("a", "sleep 1")] + [bench.submit(name, "go") for name in "bcdefg"]
    for part in pending:
        bench.pool.collect(part)
    assert bench.calls() == ["a", "b c d", "e f g"]


def test_scoring_goes_on_while_groups_are_still_coming(bench):
    bench = bench()
    bench.submit("a", "go")
    deadline = time.monotonic() + 20
    while not (bench.folder / "answered").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (bench.folder / "answered").read_text().split()[0] == "a"


def test_groups_of_different_training_progress_do_not_share_a_call(bench):
    bench = bench()
    first = bench.submit("a", "sleep 1")
    early, late = bench.submit("b", "go", progress=0.1), bench.submit("c", "go", progress=0.2)
    assert [bench.pool.collect(part)[0].total for part in (first, early, late)] == [0.0, 0.1, 0.2]
    assert bench.calls() == ["a", "b", "c"]


def test_a_busy_worker_is_passed_over(bench):
    bench = bench(workers=2)
    slow = bench.submit("slow", "sleep 4")
    quick = [bench.submit(name, "go") for name in "abcd"]
    start = time.monotonic()
    for part in quick:
        bench.pool.collect(part)
    assert time.monotonic() - start < 3 and slow.rewards is None


def test_a_group_that_raises_is_unscored_with_the_reason_and_the_others_of_its_call_are_not(bench):
    bench = bench()
    pending = [bench.submit("a", "sleep 0.5"), bench.submit("bad", "raise"), bench.submit("c", "go")]
    good, bad, other = (bench.pool.collect(part) for part in pending)
    assert bench.calls()[1] == "bad c"
    assert [reward.total for reward in (*good, *other)] == [0.0, 1.0] * 2
    assert [reward.total for reward in bad] == [None, None]
    assert "ZeroDivisionError: in the reward" in bad[0].detail and "'bad'" in bad[0].detail


def test_an_error_of_the_configuration_is_raised(bench):
    bench = bench()
    pending = bench.submit("a", "mend")
    with pytest.raises(UserError, match="mend your configuration"):
        bench.pool.collect(pending)


@pytest.mark.parametrize("workers", [1, 2])
def test_kill_9_in_the_middle_of_a_batch_loses_nothing(bench, workers):
    bench = bench(workers=workers)
    (pid, *_) = ray.get([actor.ready.remote() for actor in bench.actors])
    pending = {name: bench.submit(name, "sleep 0.3") for name in "abcdefghij"}
    killer = threading.Thread(target=bench.kill_in_a_batch, args=[pid])
    killer.start()
    rewards = {name: bench.pool.collect(part) for name, part in pending.items()}
    killer.join()
    assert all([r.total for r in group] == [0.0, 1.0] for group in rewards.values())
    assert all({r.detail for r in group} == {name} for name, group in rewards.items())
    answered = [line.split() for line in (bench.folder / "answered").read_text().splitlines()]
    assert sorted(name for name, _ in answered) == list("abcdefghij")
    assert len({process for _, process in answered}) >= workers
    assert "reward[0] died" in bench.warnings[0] and len(bench.warnings) == 1


def test_nothing_waits_for_a_dead_worker_where_there_is_another(bench):
    bench = bench(workers=2)
    (bench.folder / "slow-start").touch()
    start = time.monotonic()
    pending = [bench.submit("a", "die-once"), *(bench.submit(name, "go") for name in "bcd")]
    assert all(reward.total is not None for part in pending for reward in bench.pool.collect(part))
    assert time.monotonic() - start < 8
    (bench.folder / "slow-start").unlink()


def test_a_group_that_kills_whoever_scores_it_is_the_only_one_unscored(bench):
    bench = bench(workers=2, batch_groups=4)
    pending = {name: bench.submit(name, "die" if name == "c" else "sleep 0.1") for name in "abcdefgh"}
    totals = {name: [r.total for r in bench.pool.collect(part)] for name, part in pending.items()}
    assert totals.pop("c") == [None, None]
    assert all(values == [0.0, 1.0] for values in totals.values())


def test_a_hanging_call_is_ended_at_its_deadline_and_the_worker_serves_again(bench):
    bench = bench(timeout_s=1.0)
    (before,) = ray.get([actor.ready.remote() for actor in bench.actors])
    hung = bench.pool.collect(bench.submit("a", "sleep 1000"))
    assert [reward.total for reward in hung] == [None, None]
    assert "no answer within 1 s" in hung[0].detail
    assert bench.pool.collect(bench.submit("b", "go"))[0].total == 0.0
    assert ray.get(bench.actors[0].ready.remote()) != before


def test_a_reward_with_its_own_deadline_may_use_it_up_for_every_sample():
    reward = RewardConfig(timeout_s=60.0, math_timeout_s=5.0, custom_timeout_s=10.0)
    pools = [
        RewardPool.from_config([], config, print) for config in (reward, replace(reward, custom="f.py:f"))
    ]
    groups = [PendingScore(None, None, samples, 0.0) for samples in (8, 1)]
    assert [pool._allowed_s(groups) for pool in pools] == [2 * 60 + 9 * 5, 2 * 60 + 9 * 10]


def test_without_any_worker_left_groups_are_unscored_not_awaited(bench):
    bench = bench()
    ray.kill(bench.actors[0], no_restart=True)
    pending = [bench.submit(name, "go") for name in "ab"]
    assert [bench.pool.collect(part)[0].total for part in pending] == [None, None]
    assert "no reward worker is left" in pending[0].rewards[0].detail
    assert any("reward[0] is lost" in text for text in bench.warnings)


SLOW = r"""
import os, time

def slow(sample):
    open(sample.question, "a").write(f"{sample.prompt_id}.{sample.sample_index} {os.getppid()}\n")
    time.sleep(0.15)
    return sample.sample_index / 4
"""


def test_a_real_reward_worker_killed_while_a_users_function_runs_loses_no_sample(cluster, tmp_path):
    from mixed_r1_ray.rewards.worker import RewardWorker

    (tmp_path / "mine.py").write_text(SLOW)
    seen = tmp_path / "seen"
    config = Config()
    config.reward.custom, config.reward.custom_types = f"{tmp_path}/mine.py:slow", ["matching"]
    workers = [RewardWorker.options(num_cpus=0).remote(config) for _ in range(2)]
    ray.get([worker.ready.remote() for worker in workers], timeout=60)
    pool = RewardPool.from_config(workers, config.reward, print)
    zeros = np.zeros(1, np.float32)
    group = tuple(Rollout(i, zeros, zeros, zeros, "<answer>x</answer>", True) for i in range(4))
    pending = {}
    for name in "abcdefgh":
        prompt = Prompt(name, "shapes", "matching", str(seen), "yes", None, (), None, "…", 3)
        pending[name] = pool.submit(prompt, ray.put(Group(name, zeros, group)), 4, 0.0)

    def kill():
        while not seen.exists() or seen.read_text().count("\n") < 10:
            time.sleep(0.01)
        os.kill(int(seen.read_text().splitlines()[-1].split()[1]), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    tasks = {name: [reward.task for reward in pool.collect(part)] for name, part in pending.items()}
    killer.join()
    for worker in workers:
        ray.kill(worker)
    assert tasks == {name: [0.0, 0.25, 0.5, 0.75] for name in "abcdefgh"}
    assert len({line.split()[1] for line in seen.read_text().splitlines()}) >= 2
