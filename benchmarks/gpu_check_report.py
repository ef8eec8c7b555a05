"""What a check of a GPU found, as figures with their units in their names, and how they stand to the targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from loop import Step

from mixed_r1_ray.config import Config
from mixed_r1_ray.scale.architecture import Architecture
from mixed_r1_ray.scale.hardware import DEVICES, GIB
from mixed_r1_ray.scale.memory import BYTES, PackedRow
from mixed_r1_ray.scale.operations import forward_flops, vision_flops

BACKWARD = 2  # forwards; recomputation is work, but not of the model
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Target:
    """A figure's bound."""

    figure: str
    bound: float
    at_least: bool = False

    def verdict(self, figures: dict[str, float]) -> str:
        if self.figure not in figures:
            return NOT_MEASURED
        value = figures[self.figure]
        return "met" if (value >= self.bound if self.at_least else value <= self.bound) else "not met"

    def __str__(self) -> str:
        return f"{self.figure} {'>=' if self.at_least else '<='} {self.bound:g}"


TARGET_SHAPE = "qwen2_5_vl_3b"
TARGETS = (  # of that shape on one H200
    Target("sync_s", 0.3),
    Target("learn_mfu", 0.35, at_least=True),
    Target("generation_relative_to_plain_vllm", 0.9, at_least=True),
    Target("neither_generation_nor_learning_fraction", 0.1),
    Target("memory_peak_gib", 80.0),
)


def device_named(name: str) -> str | None:
    """Key of scale/hardware.py's DEVICES, from what the driver calls the card."""
    return next((known for known in sorted(DEVICES, reverse=True) if known in name.replace("-", " ").split()), None)


def model_flops(
    architecture: Architecture, prompt_tokens: float, picture_tokens: float, lengths: Sequence[int], freeze: str
) -> float:
    """Operations of one packed group's update: a forward and a backward of what is trained, a forward of what is not."""
    row = PackedRow(prompt_tokens, len(lengths), fmean(lengths))
    vision = vision_flops(architecture.vision, picture_tokens)
    looks = 1 + BACKWARD if freeze == "none" else 1
    return (1 + BACKWARD) * forward_flops(architecture.language, row) + looks * vision


def figures_of(
    config: Config,
    architecture: Architecture,
    steps: Sequence[Step],
    copy_bytes_per_s: float,
    peak_flops: float | None,
) -> dict[str, float]:
    """Means over `steps`. peak_flops: the card's; None where it is unknown, and so is MFU."""
    common = set.intersection(*(set(step.metrics) for step in steps))  # a reward type may be missing from a step
    mean = {name: fmean(step.metrics[name] for step in steps) for name in common}
    tokens = fmean(sum(map(sum, step.lengths.values())) for step in steps)
    learned = tokens + fmean(step.prompt_tokens for step in steps)
    step_s, phases = mean["time/step_s"], ("generate", "learn")
    sent = BYTES[config.model.dtype] * architecture.changing(config.learner.freeze)
    turns = {name for step in steps for name in step.metrics if name.startswith("memory/peak_")}
    peaks = {name.replace("/", "_"): max(step.metrics.get(name, 0.0) for step in steps) for name in sorted(turns)}
    figures = {
        **{
            f"parity_logprob_abs_{name}": max(step.metrics[f"mismatch/logprob_abs_{name}"] for step in steps)
            for name in ("mean", "q999", "max")
        },
        "parity_kl": mean["mismatch/kl"],
        "step_s": step_s,
        **{f"{phase}_s": mean[f"time/{phase}_s"] for phase in (*phases, "sync", "reference", "reward", "idle")},
        "neither_generation_nor_learning_fraction": 1 - sum(mean[f"time/{phase}_s"] for phase in phases) / step_s,
        "response_tokens": tokens,
        "generated_tokens_per_s": tokens / mean["time/generate_s"],
        "learned_tokens_per_s": learned / mean["time/learn_s"],
        "sync_gib": sent / GIB,
        "sync_gb_per_s": sent / 1e9 / mean["time/sync_s"],
        "device_copy_s": sent / copy_bytes_per_s,
        "device_copy_gb_per_s": copy_bytes_per_s / 1e9,
        **peaks,
        **{f"{name.removeprefix('time/')}": mean[name] for name in sorted(mean) if name.startswith("time/turn_")},
    }
    if peaks:
        figures["memory_peak_gib"] = max(peaks.values())
    if peak_flops is not None:
        picture_tokens = architecture.picture_tokens(config.model.max_tiles, config.model.max_pixels)
        flops = [
            model_flops(architecture, step.prompt_tokens / len(step.lengths), picture_tokens, lengths, config.learner.freeze)
            for step in steps
            for lengths in step.lengths.values()
        ]
        figures["learn_mfu"] = sum(flops) / len(steps) / mean["time/learn_s"] / peak_flops
    return figures


def verdicts(figures: dict[str, float]) -> dict[str, str]:
    """How a 3B's figures on an H200 stand to the targets."""
    return {str(target): target.verdict(figures) for target in TARGETS}


def print_report(shape: str, figures: dict[str, float]) -> None:
    print(f"\n{shape}")
    for name, value in figures.items():
        print(f"  {name:44}{value:14.4g}")
    if shape == TARGET_SHAPE:
        for target, verdict in verdicts(figures).items():
            print(f"  target on an H200: {target:52}{verdict}")
