"""What engines say that they are, in the log of the start."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import mixed_r1_ray.actors as module
from mixed_r1_ray.config import Config
from mixed_r1_ray.types import EngineFacts

CARD = "NVIDIA H100 80GB HBM3, NVIDIA driver 580.65.06"
FACTS = EngineFacts(CARD, "V2", "FLASH_ATTN", "FLASH_ATTN", 912_345, 1024)


def worker(answer: object) -> SimpleNamespace:
    return SimpleNamespace(ready=SimpleNamespace(remote=lambda: answer))


def test_engines_that_are_alike_are_told_once_and_another_apart(monkeypatch):
    monkeypatch.setattr(module, "fetch", lambda answer, what, deadline_s: answer)
    pools = {"reward": [worker(True)], "rollout": [worker(FACTS), worker(replace(FACTS, model_runner="V1")), worker(FACTS)]}
    said = []
    module.await_ready(SimpleNamespace(of=lambda role: pools.get(role, [])), Config(), said.append)
    (first, second) = [line for line in said if not line.startswith("starting ")]
    assert first == (
        f"2 engines: {CARD}; vLLM model runner V2; attention FLASH_ATTN, in the vision tower FLASH_ATTN; "
        "KV cache of 912,345 tokens; at most 1,024 sequences at once"
    )
    assert second.startswith("1 engine: ") and "model runner V1" in second
