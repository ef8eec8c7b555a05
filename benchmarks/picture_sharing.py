"""What it saves to encode a prompt's pictures once for its G responses instead of once for each.

    python benchmarks/picture_sharing.py # two minutes; rounds=N for other than 7

Gradient time (forward and backward, one thread, float32) of the learner's packed groups of 8 responses against
the same with every picture encoded 8 times, taking turns. The bound is (V + L) / (V / 8 + L): V the vision part of
encoding for each sample and L the language part, both measured by themselves. `reached` is how much of the way from 1
to the bound the measured ratio goes. Gradients are compared too, and the benchmark stops where they differ. `per
sample` is the ordinary layout, a row for each response with its own prompt and pictures: packing also saves the
prompt's language part.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
import transformers

from mixed_r1_ray.config import ModelConfig
from mixed_r1_ray.policy import group_attention
from mixed_r1_ray.policy.loading import freeze_parts
from mixed_r1_ray.policy.logprobs import PolicyModel
from mixed_r1_ray.policy.packing import PackedGroups, pack
from mixed_r1_ray.types import PromptInputs
from mixed_r1_ray.vlm import tiny
from mixed_r1_ray.vlm.internvl import InternVLAdapter

GROUP_SIZE, QUESTION_TOKENS, RESPONSE_TOKENS = 8, 20, 32
TEXTS = ("Where is the red circle? What is the value of the blue bar?",)
LIMIT = 1e-5


class PerSample(InternVLAdapter):
    """Encodes every picture GROUP_SIZE times. The copies' mean is the picture, and its gradient the sum of theirs."""

    def image_features(self, model, pixels):
        copies = {name: torch.cat([values] * GROUP_SIZE) for name, values in pixels.items()}
        return super().image_features(model, copies).unflatten(0, (GROUP_SIZE, -1)).mean(0)


class Precomputed(InternVLAdapter):
    """Encodes nothing: what is left is the language part."""

    features: torch.Tensor

    def image_features(self, model, pixels):
        return self.features


@dataclass
class Case:
    name: str
    freeze: str
    model: torch.nn.Module
    processor: object
    side: int
    num_prompts: int

    def policy(self, adapter_class: type[InternVLAdapter]) -> PolicyModel:
        adapter = adapter_class(self.processor, self.model.config.image_token_id, ModelConfig())
        return PolicyModel(self.model, adapter, 1.0, freeze_parts(self.model, adapter, self.freeze))

    def prompts(self) -> list[PromptInputs]:
        random = np.random.default_rng(0)
        image_tokens = (self.side // tiny.PATCH // tiny.MERGE) ** 2
        picture = np.full(image_tokens, self.model.config.image_token_id)
        return [
            PromptInputs(
                np.concatenate([picture, random.integers(10, 20, QUESTION_TOKENS)]).astype(np.int64),
                {"pixel_values": random.normal(size=(1, 3, self.side, self.side)).astype(np.float32)},
            )
            for _ in range(self.num_prompts)
        ]

    def responses(self) -> list[list[np.ndarray]]:
        random = np.random.default_rng(1)
        return [[random.integers(10, 20, RESPONSE_TOKENS) for _ in range(GROUP_SIZE)] for _ in range(self.num_prompts)]

    def shared(self) -> PackedGroups:
        """A row a prompt."""
        policy = self.policy(InternVLAdapter)
        return pack(self.prompts(), self.responses(), policy.adapter, policy.model)

    def by_sample(self) -> PackedGroups:
        """A row a response."""
        policy = self.policy(InternVLAdapter)
        prompts = [prompt for prompt in self.prompts() for _ in range(GROUP_SIZE)]
        return pack(prompts, [[response] for row in self.responses() for response in row], policy.adapter, policy.model)


def cases() -> list[Case]:
    processor = tiny.build_processor("internvl", TEXTS)
    small = tiny.build_model("internvl", processor.tokenizer, seed=0)
    heavy = _vision_heavy(small.config)
    for model in (small, heavy):
        model.eval().set_attn_implementation(group_attention.register())
    return [
        Case(f"{name}, {'trained' if freeze == 'none' else 'frozen'} tower", freeze, model, processor, *size)
        for name, model, *size in (("small", small, tiny.SIDE, 16), ("vision-heavy", heavy, 224, 4))
        for freeze in ("none", "vision+projector")
    ]


def _vision_heavy(small: transformers.InternVLConfig) -> transformers.InternVLForConditionalGeneration:
    """A tower of 6 layers of 256 on 224 pixels before the small language model: 64 tokens a picture."""
    config = small.to_dict()
    config["vision_config"] |= {
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "image_size": [224, 224],
    }
    config["image_seq_length"] = 64
    torch.manual_seed(0)
    return transformers.InternVLForConditionalGeneration(transformers.InternVLConfig(**config)).float()


def gradient(policy: PolicyModel, packed: PackedGroups) -> None:
    logprobs, _ = policy(packed)
    (logprobs * torch.linspace(-1, 1, len(logprobs))).mean().backward()


def vision_part(policy: PolicyModel, packed: PackedGroups) -> None:
    with torch.set_grad_enabled(policy.train_vision):
        features = policy.adapter.image_features(policy.model, packed.pixels)
    if policy.train_vision:
        features.mean().backward()


def measure(case: Case, rounds: int) -> None:
    shared, by_sample = case.shared(), case.by_sample()
    sharing, per_sample, language = (case.policy(kind) for kind in (InternVLAdapter, PerSample, Precomputed))
    with torch.no_grad():
        features = sharing.adapter.image_features(case.model, shared.pixels)
    language.adapter.features = features.requires_grad_(sharing.train_vision)
    difference = compare_gradients(case.model, lambda: gradient(sharing, shared), lambda: gradient(per_sample, shared))
    seconds = timed(
        {
            "shared": lambda: gradient(sharing, shared),
            "encoded": lambda: gradient(per_sample, shared),
            "vision": lambda: vision_part(per_sample, shared),
            "language": lambda: gradient(language, shared),
            "by sample": lambda: gradient(sharing, by_sample),
        },
        rounds,
    )
    vision, rest = seconds["vision"], seconds["language"]
    bound, ratio = (vision + rest) / (vision / GROUP_SIZE + rest), seconds["encoded"] / seconds["shared"]
    print(
        f"{case.name}: V {vision:.3f} s, L {rest:.3f} s; shared {seconds['shared']:.3f} s, encoded for each sample "
        f"{seconds['encoded']:.3f} s: × {ratio:.2f} of at most {bound:.2f}, reached {(ratio - 1) / (bound - 1):.0%}; "
        f"per sample {seconds['by sample']:.3f} s: × {seconds['by sample'] / seconds['shared']:.2f}; "
        f"gradients differ by {difference:.1e}"
    )


def compare_gradients(model: torch.nn.Module, one: Callable[[], None], two: Callable[[], None]) -> float:
    """The largest difference; stops the benchmark where it exceeds LIMIT times the larger of 1 and the gradient."""
    gradients = []
    for compute in (one, two):
        model.zero_grad()
        compute()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    first, second = gradients
    if first.keys() != second.keys():
        raise SystemExit("not the same parameters have a gradient")
    worst = max(float((first[name] - second[name]).abs().max()) for name in first)
    if worst > LIMIT:
        raise SystemExit(f"gradients differ by {worst:.1e}")
    return worst


def timed(parts: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each part; all take turns, the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(rounds + 1):
        for name, part in parts.items():
            begun = time.process_time()
            part()
            if number:
                seconds[name].append(time.process_time() - begun)
    return {name: median(values) for name, values in seconds.items()}


def main() -> None:
    torch.set_num_threads(1)
    rounds = next((int(word.removeprefix("rounds=")) for word in sys.argv[1:] if word.startswith("rounds=")), 7)
    for case in cases():
        measure(case, rounds)


if __name__ == "__main__":
    main()
