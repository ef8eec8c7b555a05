"""Runs of the real program as processes of their own: started, watched, signalled, and looked at afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MARK = "MIXED_R1_RAY_TEST_RUN"  # every process of a run inherits it, whoever its parent is by then
START_S = 600.0  # a start takes half a minute; a machine with much else to do, several
CLOCKED = ("time/", "throughput/")
# The largest rounding error of a step is no property of the step: it moves with where the allocator puts a tensor,
# between two runs that were never killed too. What a run promises of it is the bound of engine/trainer parity.
ROUNDING = "mismatch/"
PARITY_BOUND = 1e-4
TINY = (
    "tiny.warm_start_steps=20",
    "tiny.threads=1",
    "tiny.train_per_type=64",
    "tiny.eval_per_type=8",
    "rollout.prompts_per_step=8",
    "rollout.group_size=4",
    "rollout.max_new_tokens=24",
    "reference.num_workers=1",  # a start less
    "learner.lr_scheduler=cosine",  # so that a step that is done again with another rate shows
    "learner.warmup_steps=2",
    "learner.schedule_steps=6",
    "learner.min_lr_ratio=0.1",
    "run.save_rollouts_every=1",
    "cluster.num_cpus=2",
)


@dataclass
class RealRun:
    """One `python -m mixed_r1_ray.main`, under way or ended."""

    folder: Path
    process: subprocess.Popen
    log: Path
    mark: str
    started: float = field(default_factory=time.monotonic)
    listened_at: set[str] = field(default_factory=set)  # while it ran, where a fixture looked
    waits: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)  # likewise

    @property
    def output(self) -> str:
        """All it has printed so far, both streams."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def metrics(self) -> list[dict]:
        """The finished lines of metrics.jsonl."""
        file = self.folder / "metrics.jsonl"
        content = file.read_text(encoding="utf-8") if file.exists() else ""
        return [json.loads(line) for line in content[: content.rfind("\n") + 1].splitlines()]

    def training_lines(self) -> dict[int, dict]:
        """Metrics by training step, without what a clock says."""
        return {
            line["step"]: {name: value for name, value in line.items() if not name.startswith(CLOCKED)}
            for line in self.metrics()
            if "reward/mean" in line
        }

    def finish(self, timeout_s: float = START_S) -> int:
        """Waits for its end and returns the exit code."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not ended after {timeout_s:g} s:\n{self.output[-4000:]}") from None

    def await_step(self, step: int, timeout_s: float = START_S) -> None:
        """Returns once the metrics of `step` are written."""
        self._await(lambda: any(line["step"] >= step for line in self.metrics()), f"step {step}", timeout_s)

    def await_checkpoint(self, step: int, timeout_s: float = START_S) -> None:
        """Returns once the checkpoint of `step` has its name."""
        folder = self.folder / "checkpoints" / f"step_{step:06d}"
        self._await(folder.is_dir, folder.name, timeout_s)

    def await_output(self, text: str, timeout_s: float = START_S) -> None:
        """Returns once `text` has been printed."""
        self._await(lambda: text in self.output, repr(text), timeout_s)

    def interrupt(self) -> None:
        """What Ctrl-C does in a terminal: SIGINT to the whole foreground process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def processes(self) -> dict[int, str]:
        """Command lines of all living processes of this run, by process id."""
        return marked_processes(self.mark)

    def listening(self) -> set[str]:
        """Addresses at which processes of this run wait for connections."""
        import psutil

        mine = self.processes()
        return {
            connection.laddr.ip.removeprefix("::ffff:")  # an IPv4 address on an IPv6 socket
            for connection in psutil.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN and connection.pid in mine
        }

    def openmp_waits(self) -> dict[str, tuple[str | None, str | None]]:
        """As below, of all but the driver, which sets it after its start."""
        return openmp_waits(pid for pid in self.processes() if pid != self.process.pid)

    def leftovers(self, timeout_s: float = 120.0) -> dict[int, str]:
        """Processes that outlive the run's end by more than `timeout_s`; none, if all is well."""
        deadline = time.monotonic() + timeout_s
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return left

    def _await(self, happened: Callable[[], bool], what: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not happened():
            assert self.process.poll() is None, f"ended before {what}:\n{self.output[-4000:]}"
            assert time.monotonic() < deadline, f"no {what} after {timeout_s:g} s:\n{self.output[-4000:]}"
            time.sleep(0.02)


def assert_same_curve(one: RealRun, other: RealRun) -> None:
    """Every training step of `one` stands in `other`, with the same metrics to 1e-6."""
    lines, others = one.training_lines(), other.training_lines()
    for step, line in lines.items():
        assert others[step].keys() == line.keys()
        for name, value in line.items():
            if name.startswith(ROUNDING):
                assert max(value, others[step][name]) <= PARITY_BOUND, (step, name)
            else:
                assert others[step][name] == pytest.approx(value, rel=1e-6, abs=1e-6), (step, name)


def start_run(
    folder: Path, cache: Path, *overrides: str, environment: dict[str, str] | None = None, size: Sequence[str] = TINY
) -> RealRun:
    """Starts the quickstart at a tiny size with `folder` as its run folder; `overrides` come last."""
    command = [sys.executable, "-m", "mixed_r1_ray.main", "conf=quickstart", *size]
    command += [f"run.dir={folder.parent}", f"run.name={folder.name}", f"tiny.cache_dir={cache}"]
    command += [f"data.cache_dir={cache}", *overrides]
    mark = uuid.uuid4().hex
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.parent / f"{folder.name}-{mark[:8]}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=run_environment(mark) | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return RealRun(folder, process, log, mark)


def run_environment(mark: str) -> dict[str, str]:
    """This process's environment without what would change a run, and with the mark."""
    left_out = ("RAY_ADDRESS", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    inherited = {name: value for name, value in os.environ.items() if name not in left_out}
    path = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH"))))
    return inherited | {MARK: mark, "PYTHONPATH": path}


def marked_processes(mark: str) -> dict[int, str]:
    """Command lines of the living processes that carry `mark` in their environment, by process id."""
    found = {}
    sought = f"{MARK}={mark}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if sought in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # ended meanwhile, or not ours to read
            continue
    return found


def openmp_waits(pids: Iterable[int]) -> dict[str, tuple[str | None, str | None]]:
    """OMP_WAIT_POLICY and GOMP_SPINCOUNT as each of these processes that has loaded OpenMP was started with them.

    By command line and pid.
    """
    found = {}
    for folder in (Path("/proc") / str(pid) for pid in pids):
        try:
            command, environ = ((folder / name).read_text().split("\0") for name in ("cmdline", "environ"))
            if "libgomp" in (folder / "maps").read_text():
                values = dict(entry.split("=", 1) for entry in environ if "=" in entry)
                found[f"{' '.join(command)}{folder.name}"] = values.get("OMP_WAIT_POLICY"), values.get("GOMP_SPINCOUNT")
        except OSError:  # ended meanwhile
            continue
    return found


def end_marked_processes(mark: str) -> None:
    """Kills what a test that failed would leave behind."""
    for pid in marked_processes(mark):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


@contextmanager
def memory_watched(run: RealRun, every_s: float = 0.5) -> Iterator[list[int]]:
    """Collects, while the block runs, the bytes that all processes of `run` hold.

    The sum of proportional set sizes counts a page that several share once, so the object store is in it once.
    """
    samples: list[int] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(every_s):
            samples.append(sum(map(_proportional_set_size, run.processes())))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


def _proportional_set_size(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
