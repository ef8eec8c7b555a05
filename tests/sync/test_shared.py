"""A bucket lent to another process: on a CPU by the name of shared memory, on a GPU by a handle of CUDA."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from mixed_r1_ray.sync.packed import lay_out, pack
from mixed_r1_ray.sync.shared import lend

BORROWER = """
import pickle, sys, torch.multiprocessing
from mixed_r1_ray.sync.sources import SharedWeights
torch.multiprocessing.set_sharing_strategy("file_system")
bucket = pickle.load(sys.stdin.buffer)
for name, tensor in SharedWeights((bucket,)).tensors(None):
    print(name, tensor.dtype, tensor.tolist())
    tensor += 1
"""


@pytest.fixture
def shared_by_name():
    before = torch.multiprocessing.get_sharing_strategy()
    torch.multiprocessing.set_sharing_strategy("file_system")
    yield
    torch.multiprocessing.set_sharing_strategy(before)


def test_another_process_reads_the_lenders_own_memory(shared_by_name):
    import pickle

    weights = {"a": torch.tensor([1.5, 2.0], dtype=torch.bfloat16), "b": torch.arange(3.0)}
    layout = lay_out([(name, tensor.dtype, tensor.shape) for name, tensor in weights.items()])
    packed = pack(layout, weights.values(), torch.device("cpu"))
    ticket = pickle.dumps(lend(layout, packed))
    assert len(ticket) < 2000  # a handle, not the content
    read = subprocess.run([sys.executable, "-c", BORROWER], input=ticket, capture_output=True, timeout=120, check=True)
    assert read.stdout.decode().splitlines() == ["a torch.bfloat16 [1.5, 2.0]", "b torch.float32 [0.0, 1.0, 2.0]"]
    assert packed[:4].view(torch.bfloat16).tolist() == [2.5, 3.0]  # what the borrower wrote: nothing was copied
