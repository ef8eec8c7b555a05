"""How fast BMAS is, against a loop over pairs and against BERTScore's greedy matching, on equal embeddings.

    OMP_NUM_THREADS=2 python benchmarks/rewards.py [--pairs 1024] [--rounds 5]

Groups of 8 responses share a gold of 200 tokens; token ids follow Zipf's law over 150,000 rows of 1,024.
The three are timed in turn, round after round, so that a busy machine slows all alike; it prints medians
and ratios. (b) is the bert-score package's own function: pip install bert-score==0.3.13.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

try:
    from bert_score.utils import greedy_cos_idf
except ImportError:
    sys.exit("error: (b) is the bert-score package's own function; pip install bert-score==0.3.13")

from mixed_r1_ray.rewards import EmbeddingTable
from mixed_r1_ray.rewards.bmas import bmas_group

VOCABULARY, WIDTH, LENGTH, GROUP = 150_000, 1024, 200, 8


def zipf_ids(rng: np.random.Generator, count: int, exponent: float) -> np.ndarray:
    """(count, LENGTH) token ids whose rank-frequency curve is a power law."""
    weights = 1.0 / np.arange(1, VOCABULARY + 1) ** exponent
    return rng.choice(VOCABULARY, size=(count, LENGTH), p=weights / weights.sum())


def ours(responses: np.ndarray, golds: np.ndarray, table: EmbeddingTable) -> np.ndarray:
    groups = zip(np.split(responses, len(golds)), golds)
    return np.array([s.joined("mean") for group, gold in groups for s in bmas_group(group, gold, table)])


def pair_loop(responses: np.ndarray, golds: np.ndarray, matrix: torch.Tensor) -> np.ndarray:
    """(a) one full cosine matrix a pair."""
    values = []
    for number, response in enumerate(torch.from_numpy(responses)):
        r = torch.nn.functional.normalize(matrix[response], dim=-1)
        g = torch.nn.functional.normalize(matrix[torch.from_numpy(golds[number // GROUP])], dim=-1)
        similarity = r @ g.T
        values.append(float(similarity.max(1).values.mean() + similarity.max(0).values.mean()) / 2)
    return np.array(values)


def greedy_matching(responses: np.ndarray, golds: np.ndarray, matrix: torch.Tensor) -> np.ndarray:
    """(b) batches of 64 pairs, as bert-score forms them; its F1 is left aside for the mean of P and R."""
    ids, gold_ids = torch.from_numpy(responses), torch.from_numpy(np.repeat(golds, GROUP, axis=0))
    values = []
    for start in range(0, len(ids), 64):
        hypotheses, references = matrix[ids[start : start + 64]], matrix[gold_ids[start : start + 64]]
        masks, idf = torch.ones(hypotheses.shape[:2]), torch.ones(hypotheses.shape[:2])
        precision, recall, _ = greedy_cos_idf(references, masks, idf.clone(), hypotheses, masks, idf)
        values.append((precision + recall) / 2)
    return torch.cat(values).numpy()


def timed(function: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    values = function()
    return time.perf_counter() - start, values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--exponent", type=float, default=1.0, help="of Zipf's law")
    arguments = parser.parse_args()

    rng = np.random.default_rng(0)
    matrix = torch.from_numpy(rng.standard_normal((VOCABULARY, WIDTH), dtype=np.float32))
    table = EmbeddingTable(matrix.numpy(), tokenizer=None)
    responses = zipf_ids(rng, arguments.pairs, arguments.exponent)
    golds = zipf_ids(rng, arguments.pairs // GROUP, arguments.exponent)
    runs = {
        "mixed_r1_ray": lambda: ours(responses, golds, table),
        "(a) loop over pairs": lambda: pair_loop(responses, golds, matrix),
        "(b) bert-score greedy": lambda: greedy_matching(responses, golds, matrix),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    values: dict[str, np.ndarray] = {}
    for _ in range(arguments.rounds):
        for name, run in runs.items():
            seconds, values[name] = timed(run)
            times[name].append(seconds)
    best, *_ = values.values()
    base = statistics.median(times["mixed_r1_ray"])
    print(f"{arguments.pairs} pairs, {torch.get_num_threads()} threads, {table.rows_held} rows held")
    for name, seconds in times.items():
        median = statistics.median(seconds)
        difference = np.abs(values[name] - best).max()
        speed = arguments.pairs / median
        print(
            f"{name:22s} {speed:8.0f} pairs/s   ×{median / base:5.2f} our time  difference ≤ {difference:.1e}"
        )


if __name__ == "__main__":
    main()
