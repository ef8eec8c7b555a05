"""What work on two threads takes, alone and beside other work, by how long its threads spin before they sleep.

    python benchmarks/waits.py                         2 minutes; nothing else may run, and it says what did
    python benchmarks/waits.py rounds=9 size=256 spins=0,2000,300000

Two kinds of work: a loop of `products` of small matrices (size x size), and `training`, steps of the tiny model's warm
start, which is the learner's forward and backward. spins: of GOMP_SPINCOUNT, at each barrier; 1,000 take some 40 us; a run has
what environment.py says, and libgomp's own is 300,000. Each is a process of its own, and beside it two busy ones, which
are halted while it works alone: of one thread each, or of busy_threads=2 that wait in the same way. Fair shares of two
processors make it 2 or 3 times. All take turns, round after round; medians.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import psutil
from paired import print_head, print_row
from process import Process

SPINS = "0,300,1000,2000,4000,300000"  # not at all, environment.py's, libgomp's
THREADS = 2
BUSY = 2
PRODUCTS, TRAINING = "products", "training"
SECONDS_ALONE = 0.25  # of products, about
PICTURES = 16  # of a training step: one forward of the warm start


def main(arguments: list[str]) -> None:
    settings = dict(argument.split("=", 1) for argument in arguments)
    rounds, size = int(settings.pop("rounds", 5)), int(settings.pop("size", 512))
    spins, busy_threads = settings.pop("spins", SPINS).split(","), int(settings.pop("busy_threads", 1))
    if settings or not all(map(str.isdigit, spins)):
        raise SystemExit(__doc__)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        data = _few_pictures(Path(folder))
        sides = {count: _Side(stack, count, size, busy_threads, folder, data) for count in spins}
        taken = {(kind, count): [] for kind in (PRODUCTS, TRAINING) for count in spins}
        for number in range(1, rounds + 1):
            for kind, count in taken:
                taken[kind, count].append((sides[count].alone(kind), sides[count].beside(kind)))
            print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
    _print_table(taken, spins[-1])
    elsewhere = median(other for rows in taken.values() for (_, other), _ in rows)
    print(f"\nof the processors, other processes had {elsewhere:.1%} while a side worked alone; medians of {rounds} rounds")


class _Side:
    """One way of waiting: a process for each kind of work, and the busy ones beside it."""

    def __init__(self, stack: ExitStack, spins: str, size: int, busy_threads: int, folder: str, data: str):
        def start(serve: Callable, *more: object) -> Process:
            environment = {"GOMP_SPINCOUNT": spins, "OMP_NUM_THREADS": str(THREADS)}
            return stack.enter_context(Process(serve, *more, environment=environment))

        self.workers = {
            PRODUCTS: start(serve_products, size),
            TRAINING: start(serve_training, f"{folder}/{spins}", data),
        }
        self.count = max(1, round(SECONDS_ALONE / self.workers[PRODUCTS].ready))
        self.busy = [start(serve_for_ever, size, busy_threads) for _ in range(BUSY)]
        for process in self.busy:
            process.stop()

    def alone(self, kind: str) -> tuple[float, float]:
        """Seconds of the work, and which part of all processors other processes had meanwhile."""
        begun, used = time.perf_counter(), _used_s()
        seconds, cpu_seconds = self.workers[kind].ask(self.count)
        passed = time.perf_counter() - begun
        return seconds, max(0.0, _used_s() - used - cpu_seconds) / (passed * psutil.cpu_count())

    def beside(self, kind: str) -> float:
        for process in self.busy:
            process.go_on()
        time.sleep(0.2)
        seconds, _ = self.workers[kind].ask(self.count)
        for process in self.busy:
            process.stop()
        return seconds


def serve_products(receive: Callable, send: Callable, size: int) -> None:
    """Says what a product takes, about; then answers each count with seconds and CPU seconds of so many."""
    multiply = _multiplication(size)
    send(_timed(multiply, 100)[0] / 100)
    while True:
        send(_timed(multiply, receive()))


def serve_for_ever(receive: Callable, send: Callable, size: int, threads: int) -> None:
    multiply, parent = _multiplication(size, threads), os.getppid()
    send("ready")
    while os.getppid() == parent:
        multiply()


def serve_training(receive: Callable, send: Callable, folder: str, data: str) -> None:
    """Answers each request with seconds and CPU seconds of one step."""
    from mixed_r1_ray.policy.warm_start import warm_start

    begun = (0.0, 0.0)

    def between_steps(step: int, steps: int, loss: float) -> None:
        nonlocal begun
        send(tuple(now - then for now, then in zip(_clocks(), begun, strict=True)) if step > 1 else "ready")
        receive()
        begun = _clocks()

    warm_start(folder, "internvl", data, steps=10**6, threads=THREADS, progress=between_steps)


def _multiplication(size: int, threads: int = THREADS) -> Callable[[], object]:
    import torch

    torch.set_num_threads(threads)
    one, other = torch.rand(size, size), torch.rand(size, size)
    return lambda: one @ other


def _timed(work: Callable[[], object], count: int) -> tuple[float, float]:
    begun = _clocks()
    for _ in range(count):
        work()
    return tuple(now - then for now, then in zip(_clocks(), begun, strict=True))


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _used_s() -> float:
    """CPU seconds that the machine has worked, all processors together."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - times.iowait - times.guest - times.guest_nice


def _few_pictures(folder: Path) -> str:
    """The training split of the quickstart's data, cut to PICTURES of the pictures that carry most questions."""
    import json
    from collections import defaultdict

    import pyarrow.parquet as pq

    from mixed_r1_ray.data.synthetic import build_quickstart_data

    table = pq.read_table(build_quickstart_data(folder, seed=0, train_per_type=64, eval_per_type=1)[0])
    rows = defaultdict(list)
    for number, meta in enumerate(table["meta"].to_pylist()):
        rows[json.loads(meta)["picture"]].append(number)
    chosen = sorted(rows.values(), key=len, reverse=True)[:PICTURES]
    path = folder / "few.parquet"
    pq.write_table(table.take([number for of_picture in chosen for number in of_picture]), path)
    return str(path)


def _print_table(taken: dict[tuple[str, str], list], last: str) -> None:
    """A row for each kind of work and count. last: of the counts, the one that the others are held against."""
    print_head("work", "spins", "alone, ms", "beside, ms", "beside / alone", f"alone / alone at {last}")
    for (kind, count), rows in taken.items():
        alone, beside = median(seconds for (seconds, _), _ in rows), median(seconds for _, seconds in rows)
        pairs = zip(rows, taken[kind, last], strict=True)
        against = median(seconds / at_last for ((seconds, _), _), ((at_last, _), _) in pairs)
        times = f"{alone * 1e3:.1f}", f"{beside * 1e3:.1f}"
        print_row(kind, f"{int(count):,}", *times, f"**{beside / alone:.2f}**", f"{against:.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
