"""Thirty processes killed at random moments of short runs: each run ends, has trained on every prompt once an epoch, and
scores like a run that nobody disturbed.

    python -m pytest -m slow tests/end_to_end/test_chaos.py      # prints the table; about 25 minutes on two cores
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import sqrt

import pyarrow.parquet as pq
import pytest
from real_runs import START_S, RealRun

from mixed_r1_ray.runtime.evaluation_table import compare, load_results

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("CHAOS_KILLS", "30"))
SEED = int(os.environ.get("CHAOS_SEED", "0"))
VICTIMS = ("RolloutWorker", "RewardWorker", "ReferenceWorker", "LearnerWorker", "driver")
PROMPTS, GROUP, STEPS, EPOCHS = 64, 4, 48, 6  # 8 prompts a step
SETTINGS = (
    "tiny.train_per_type=16",
    "tiny.eval_per_type=50",
    f"run.max_steps={STEPS}",
    "run.checkpoint_every=5",
    "run.resume=auto",
)


@dataclass
class Battered:
    """A run with what was done to it."""

    run: RealRun
    kills: list[str] = field(default_factory=list)
    resumes: int = 0
    returns: int = 0  # to a checkpoint, by itself

    def count_returns(self) -> None:
        self.returns += self.run.output.count("the run goes back to its last checkpoint")

    def kill(self, victim: str) -> bool:
        """Whether there was such a process to kill."""
        after = f"{victim}@{time.monotonic() - self.run.started:.0f}s"
        if victim == "driver":
            found = [self.run.process.pid]
        else:
            titles = self.run.processes().items()  # Ray's, that name the actor's class
            found = [pid for pid, title in titles if title.startswith("ray::") and victim in title]
        for pid in found[:1]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                return False
            self.kills.append(after)
        return bool(found)


@dataclass(frozen=True)
class Undisturbed:
    run: RealRun
    seconds: float


@pytest.fixture(scope="module")
def undisturbed(finished) -> Undisturbed:
    finished(*SETTINGS)  # builds the model and the data
    run = finished(*SETTINGS)
    return Undisturbed(run, time.monotonic() - run.started)


@pytest.fixture(scope="module")
def battered(start, undisturbed) -> list[Battered]:
    """Runs until all victims have been killed, each kind equally often, in an order and at moments drawn by SEED.

    From a start or a kill to the next: up to as long as a whole run takes that nobody disturbs, by the latest to end.
    """
    chance = random.Random(SEED)
    victims = [VICTIMS[number % len(VICTIMS)] for number in range(KILLS)]
    chance.shuffle(victims)
    runs, whole = [], [undisturbed]
    while victims:
        runs.append(Battered(start(*SETTINGS)))
        batter(runs[-1], victims, lambda: chance.uniform(0, min(one.seconds for one in whole)), start)
        if not runs[-1].kills:
            whole.append(Undisturbed(runs[-1].run, time.monotonic() - runs[-1].run.started))
    return runs


def batter(one: Battered, victims: list[str], pause: Callable[[], float], start) -> None:
    """Kills while the run lasts; a driver that has gone is started again, the last time to the end."""
    deadline = time.monotonic() + 4 * START_S
    due = time.monotonic() + pause()
    while True:
        assert time.monotonic() < deadline, one.run.output[-6000:]
        time.sleep(0.1)
        if (code := one.run.process.poll()) is not None:
            assert one.run.leftovers() == {}, one.run.output[-3000:]
            one.count_returns()
            if code == 0:
                return
            one.resumes += 1
            one.run = start(*SETTINGS, folder=one.run.folder)
            due = time.monotonic() + pause()
        elif victims and time.monotonic() > due and one.kill(victims[-1]):
            victims.pop()
            due = time.monotonic() + pause()


def trained_on(run: RealRun) -> Counter:
    """(prompt, sample, epoch) of everything that the run learned from."""
    ledger: Counter = Counter()
    for step in range(1, STEPS + 1):
        rows = pq.read_table(run.folder / "rollouts" / f"step_{step:06d}.parquet", columns=["prompt_id", "sample_index"])
        epoch = (step - 1) * EPOCHS // STEPS
        ledger.update((row["prompt_id"], row["sample_index"], epoch) for row in rows.to_pylist())
    return ledger


def mean_difference(run: RealRun, other: RealRun) -> tuple[float, float]:
    """Held-out task reward of one run minus another's after the last step, sampled, mean of the types; and its error."""
    rows = compare(load_results(other.folder / "evals", STEPS), load_results(run.folder / "evals", STEPS))
    sampled = [row for row in rows if row.mode == "sampled"]
    error = sqrt(sum(row.standard_error**2 for row in sampled)) / len(sampled)
    return sum(row.difference for row in sampled) / len(sampled), error


def test_every_run_ends_learns_from_everything_once_and_scores_alike(undisturbed, battered, capsys):
    lines = ["| run | killed (seconds after its start) | back to a checkpoint | resumed | ledger | reward - undisturbed |"]
    lines.append("|---|---|---|---|---|---|")
    faults = []
    for number, one in enumerate(battered):
        ledger, (difference, error) = trained_on(one.run), mean_difference(one.run, undisturbed.run)
        whole = len(ledger) == PROMPTS * GROUP * EPOCHS and set(ledger.values()) == {1}
        killed = ", ".join(one.kills)
        lines.append(
            f"| {number} | {killed} | {one.returns} | {one.resumes} | {'whole' if whole else 'not whole'} | "
            f"{difference:+.4f} ± {error:.4f} |"
        )
        steps = [line["step"] for line in one.run.metrics() if "reward/mean" in line]
        if not whole or steps != list(range(1, STEPS + 1)) or abs(difference) > 2 * error:
            faults.append(number)
    with capsys.disabled():
        print("\n" + "\n".join(lines))
    assert faults == [], one.run.output[-3000:]
    assert sum(len(one.kills) for one in battered) == KILLS
