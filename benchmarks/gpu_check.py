"""What one GPU does with this project: parity, sync, generation, learning, memory and where a step's time goes.

    bash jobs/gpu_check.sh                                            shapes of Qwen2.5-VL-3B and InternVL3-2B
    bash jobs/gpu_check.sh --shapes internvl_2b --minutes 4           one of them
    python benchmarks/gpu_check.py --shapes tiny                      the same on a CPU, to see that it works

Needs no network: checkpoints of these shapes get random weights, here, and a tokenizer of the quickstart's words. The loop
is the real one, engine, learner and reference taking turns on the GPU (conf=debug). Then plain vLLM generates for the
same prompts. Random weights hardly ever say the token that ends, so responses are as long as they may be. Figures,
hardware and versions are written as JSON. Steps stop when most of a shape's share of --minutes is over; what does not
fit is left out and named.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_check_report import TARGET_SHAPE, device_named, figures_of, print_report, verdicts
from loop import Loop, Step, benchmark_config, started_loop
from plain_generation import serve_generation
from process import Process
from random_checkpoint import SHAPES, save_random

from mixed_r1_ray.data.synthetic import build_quickstart_data
from mixed_r1_ray.runtime.provenance import git_revision, nvidia_driver, package_versions
from mixed_r1_ray.scale.hardware import DEVICES, GIB

if TYPE_CHECKING:
    import torch

    from mixed_r1_ray.types import EngineFacts

WARM_UP_STEPS = 1
MOST_STEPS = 4
STEPS_SHARE = 0.6  # of a shape's time; the rest is for plain vLLM
PLAIN_NEEDS_S = 60.0
PIXELS = 448**2
HEAD_SIZE = 128  # of the published shapes
PROMPTS_PER_TYPE = 64
COPIES, COPIED_BYTES = 10, {"cuda": 4 * GIB, "cpu": 2**28}
ENGINE_BYTES = 48 * GIB  # on a card of any size, so that the target of 80 GiB means something on a larger one
GPU_SIZE = (
    "conf=debug",
    "model.max_length=4096",
    "rollout.prompts_per_step=8",
    "rollout.group_size=8",
    "rollout.max_new_tokens=1536",
    "rollout.max_concurrent_sequences=64",
    "learner.microbatch_tokens=16384",
    "learner.gradient_checkpointing=true",
    "learner.learning_rate=1e-6",
    "rollout.timeout_s=240",
    "learner.timeout_s=240",
)
CPU_SIZE = (
    "conf=quickstart",
    "model.dtype=bfloat16",
    "model.max_length=512",
    "rollout.prompts_per_step=2",
    "rollout.group_size=4",
    "rollout.max_new_tokens=16",
    "learner.microbatch_tokens=2048",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["qwen2_5_vl_3b", "internvl_2b"])
    parser.add_argument("--minutes", type=float, default=8.0, help="for all shapes together")
    parser.add_argument("--work", type=Path, default=Path("runs/gpu_check"), help="checkpoints and data go there")
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/gpu_check-DEVICE.json")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="any key of the configuration")
    options = parser.parse_args()
    begun, device = time.monotonic(), hardware()
    print(", ".join(f"{name} {value}" for name, value in device.items()))
    path = options.json or Path("benchmarks/results") / f"gpu_check-{device['name'].replace(' ', '_')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict] = {}
    engines: dict[str, EngineFacts] = {}
    for number, shape in enumerate(options.shapes, start=1):
        until = begun + 60 * options.minutes * number / len(options.shapes)
        if time.monotonic() > until:
            print(f"no time left for {shape}: give more --minutes")
            continue
        found[shape], engines[shape] = check(shape, options.work, options.settings, until)
        print_report(shape, found[shape])
        path.write_text(json.dumps(report(device, engines, found, time.monotonic() - begun), indent=1) + "\n")
        print(f"\nwritten: {path}")


def check(shape: str, work: Path, settings: list[str], until: float) -> tuple[dict[str, float], EngineFacts]:
    """The figures of one shape, and what its engine is. until: when it should be done, by the monotonic clock."""
    import torch

    from mixed_r1_ray.scale.architecture import read_architecture

    begun, folder = time.monotonic(), checkpoint(shape, work)
    config = benchmark_config([*run_settings(folder, work), *settings])
    with started_loop(config) as loop:
        engine = loop.engine_facts()
        steps = measured_steps(loop, stop=begun + STEPS_SHARE * (until - begun))
        last, config, train_data = len(steps), loop.config, loop.splits["train"]
        first, rows = loop.rows(1), loop.rows(last)
    known = device_named(hardware()["name"])
    figures = figures_of(
        config,
        read_architecture(config.model.path),
        steps[WARM_UP_STEPS:],
        copied_bytes_per_s(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        DEVICES[known].flops if known else None,
    )
    if known is None:
        print(f"no MFU: the peak of {hardware()['name']!r} is not in scale/hardware.py")
    if time.monotonic() < until - PLAIN_NEEDS_S:
        with Process(serve_generation, config, train_data) as plain:
            plain.ask((1, first))  # compiles
            seconds, tokens = plain.ask((last, rows))
        figures["plain_vllm_tokens_per_s"] = tokens / seconds
        figures["generation_relative_to_plain_vllm"] = figures["generated_tokens_per_s"] * seconds / tokens
    else:
        print(f"{shape}: no time left for plain vLLM")
    return figures, engine


def checkpoint(shape: str, work: Path) -> Path:
    """Its folder, written unless it is there."""
    import torch
    from datasets import load_dataset

    folder = work / shape
    if not (folder / "config.json").is_file():
        train, _ = build_quickstart_data(work / "data", train_per_type=PROMPTS_PER_TYPE, eval_per_type=4)
        texts = load_dataset("parquet", data_files=str(train), split="train")["question"]
        save_random(folder, shape, texts, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return folder


def run_settings(folder: Path, work: Path) -> list[str]:
    """The loop at a size that shows what the card does: 64 responses of 1,536 tokens a step; on a CPU a few."""
    import torch

    size = list(CPU_SIZE)
    if torch.cuda.is_available():
        fraction = min(0.6, ENGINE_BYTES / torch.cuda.get_device_properties(0).total_memory)
        size = [*GPU_SIZE, f"rollout.gpu_memory_fraction={fraction:.3f}"]
    data = [f"tiny.cache_dir={work / 'data'}", f"tiny.train_per_type={PROMPTS_PER_TYPE}", "tiny.eval_per_type=4"]
    qwen = "qwen" in folder.name
    pictures = [f"model.min_pixels={PIXELS}", f"model.max_pixels={PIXELS}"] if qwen else ["model.max_tiles=1"]
    return [*size, *data, *pictures, f"model.path={folder.resolve()}", "run.name=gpu_check", "learner.freeze=vision"]


def measured_steps(loop: Loop, stop: float) -> list[Step]:
    """The warm-up, and at least one step after it; more until `stop`, by the monotonic clock."""
    steps: list[Step] = []
    while len(steps) <= WARM_UP_STEPS or (len(steps) < WARM_UP_STEPS + MOST_STEPS and time.monotonic() < stop):
        steps.append(loop.step(len(steps) + 1))
        print(f"step {len(steps)}: {steps[-1].seconds:.2f} s", flush=True)
    return steps


def copied_bytes_per_s(device: torch.device) -> float:
    """Bytes a second that a plain copy on the device moves (read once and written once)."""
    import torch

    source = torch.ones(COPIED_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    settle = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    target.copy_(source)
    settle()
    begun = time.perf_counter()
    for _ in range(COPIES):
        target.copy_(source)
    settle()
    return COPIES * source.numel() / (time.perf_counter() - begun)


def hardware() -> dict[str, object]:
    """What it is, and the kernel of the trainer's attention there; engines say theirs themselves."""
    import platform

    import torch

    from mixed_r1_ray.policy.segment_attention import KERNEL_NAMES, kernel_for

    has_gpu = torch.cuda.is_available()
    kernel = kernel_for(torch.device("cuda", 0) if has_gpu else torch.device("cpu"), torch.bfloat16, HEAD_SIZE)
    attention = {"trainer_attention": KERNEL_NAMES[kernel]}
    if not has_gpu:
        return {"name": f"CPU {platform.machine()}", "cores": os.cpu_count()} | attention
    card = torch.cuda.get_device_properties(0)
    memory, driver = round(card.total_memory / GIB, 1), nvidia_driver()
    return {"name": card.name, "memory_gib": memory, "cuda": torch.version.cuda, "driver": driver} | attention


def report(device: dict[str, object], engines: dict[str, EngineFacts], found: dict[str, dict], seconds: float) -> dict:
    """What is written: what the engines are and figures, by shape, and how those of a 3B stand to the targets."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "revision": git_revision(),
        "hardware": device,
        "versions": package_versions(),
        "seconds": round(seconds, 1),
        "engines": {shape: asdict(facts) for shape, facts in engines.items()},
        "figures": found,
        "targets_3b_on_h200": verdicts(found.get(TARGET_SHAPE, {})),
    }


if __name__ == "__main__":
    main()
