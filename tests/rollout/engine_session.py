"""One vLLM engine driven end to end, for one model family; started by test_engine.py as a process of its own.

A process holds one engine, and starting one takes seconds: so all measurements of a family are taken here, in a row,
written as JSON, and judged there.

    python engine_session.py CHECKPOINT RESULT.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from mixed_r1_ray.config import Config
from mixed_r1_ray.guard import NumericsError
from mixed_r1_ray.policy.loading import load_policy
from mixed_r1_ray.policy.logprobs import PolicyModel
from mixed_r1_ray.policy.lora import add_lora, merged_parameters
from mixed_r1_ray.policy.packing import pack
from mixed_r1_ray.rollout.engine import Engine, EngineRequest, StaleCache
from mixed_r1_ray.sync.packed import lay_out
from mixed_r1_ray.sync.packed import pack as pack_weights
from mixed_r1_ray.sync.sources import StoredWeights
from mixed_r1_ray.types import Group, SamplingConfig

TEMPERATURE = 0.8
SAMPLING = SamplingConfig(num_samples=4, max_new_tokens=16, temperature=TEMPERATURE)
PICTURES = [
    [(112, 112)],
    [],
    [(60, 100), (112, 40)],
    [(224, 112)],
    [(57, 90)],
]  # (width, height), a list a prompt


def configuration(path: str) -> Config:
    config = Config()
    config.model.path = path
    config.model.max_tiles = (
        3 if "internvl" in path else None
    )  # tiles and a thumbnail; both are off in the checkpoint
    config.model.max_pixels = 6000 if "qwen" in path else None  # below the checkpoint's own
    config.rollout.temperature = TEMPERATURE
    config.run.seed = 5
    return config


def make_requests(engine: Engine) -> list[EngineRequest]:
    random = np.random.default_rng(0)
    requests = []
    for number, sizes in enumerate(PICTURES):
        images = tuple(random.integers(0, 255, (height, width, 3), dtype=np.uint8) for width, height in sizes)
        text = engine.adapter.prompt_text("Where is the red circle?" + " a" * number, len(images))
        requests.append(EngineRequest(f"p{number}", text, images))
    return requests


def mismatch(
    engine: Engine, policy: PolicyModel, requests: list[EngineRequest], groups: list[Group]
) -> float:
    """Largest |engine - trainer| log-probability; all groups are packed together. Asserts equal prompt tokens."""
    inputs = {request.prompt_id: engine.adapter.encode(request.text, request.images) for request in requests}
    for group in groups:
        assert group.prompt_token_ids.tolist() == inputs[group.prompt_id].input_ids.tolist(), group.prompt_id
    packed = pack(
        [inputs[group.prompt_id] for group in groups],
        [[rollout.token_ids for rollout in group.rollouts] for group in groups],
        policy.adapter,
        policy.model,
    )
    with torch.no_grad():
        ours, _ = policy(packed)
    theirs = np.concatenate([rollout.logprobs for group in groups for rollout in group.rollouts])
    return float(np.abs(ours.numpy() - theirs).max())


def weights(policy: PolicyModel) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in policy.model.named_parameters()}


def source(named: Mapping[str, torch.Tensor]) -> StoredWeights:
    layout = lay_out([(name, tensor.dtype, tensor.shape) for name, tensor in named.items()])
    return StoredWeights(((layout, pack_weights(layout, named.values(), torch.device("cpu")).numpy()),))


def parts(named: Mapping[str, torch.Tensor]) -> dict[str, StoredWeights]:
    """As learners send them who train the language model alone."""
    return {
        "changing": source({name: tensor for name, tensor in named.items() if of_language(name)}),
        "constant": source({name: tensor for name, tensor in named.items() if not of_language(name)}),
    }


def parts_under_lora(policy: PolicyModel) -> dict[str, StoredWeights]:
    """As learners send them who train adapters; by names of their own, as they fill other layers than `parts`."""
    merged = merged_parameters(policy.model)
    return {
        part: source({one.name: one.value() for one in merged if one.changes == changing})
        for part, changing in (("adapted", True), ("not adapted", False))
    }


def split_layers(named: Mapping[str, torch.Tensor]) -> dict[str, StoredWeights]:
    """Parts that share layers: biases of q, k and v apart from their weights; by names of their own, too."""
    biases = {name: tensor for name, tensor in named.items() if of_language(name) and name.endswith("_proj.bias")}
    rest = {name: tensor for name, tensor in named.items() if name not in biases}
    return {"weights": source(rest), "biases": source(biases)}


def of_language(name: str) -> bool:
    return "language_model" in name or "lm_head" in name


def tokens(groups: list[Group]) -> dict[str, list[list[int]]]:
    return {group.prompt_id: [rollout.token_ids.tolist() for rollout in group.rollouts] for group in groups}


def perturb(policy: PolicyModel, which: Callable[[str], bool] = lambda name: True) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in (parameter for name, parameter in policy.model.named_parameters() if which(name)):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def train_adapters(policy: PolicyModel) -> None:
    """Adapters with an effect, as they are after some steps."""
    add_lora(policy.model, rank=4, alpha=8.0, seed=3)
    perturb(policy, lambda name: ".lora_B." in name)


def raise_media_logits(policy: PolicyModel) -> None:
    """Makes media tokens the likeliest by far: their output rows are the others', twenty times as long."""
    banned = list(policy.adapter.banned_token_ids)
    with torch.no_grad():
        head = policy.model.lm_head.weight
        head[banned] = 20 * head[10 : 10 + len(banned)]


def share_of_media_without_ban(
    policy: PolicyModel, requests: list[EngineRequest], groups: list[Group]
) -> float:
    """Mean probability that the model itself gives media tokens where the engine sampled others.

    The ban divides what is left by its sum: p(token | ban) = p(token) / (1 - p(media)).
    """
    packed = pack(
        [policy.adapter.encode(request.text, request.images) for request in requests],
        [
            [rollout.token_ids for rollout in group.rollouts]
            for group in sorted(groups, key=lambda group: group.prompt_id)
        ],
        policy.adapter,
        policy.model,
    )
    with torch.no_grad():
        with_ban, _ = policy(packed)
        banned, policy.adapter.banned_token_ids = policy.adapter.banned_token_ids, ()
        without, _ = policy(packed)
        policy.adapter.banned_token_ids = banned
    return float((1 - (without - with_ban).exp()).mean())


def describe(group: Group) -> list[dict]:
    return [
        {
            "sample_index": rollout.sample_index,
            "length": len(rollout.token_ids),
            "last_token": int(rollout.token_ids[-1]),
            "finished": rollout.finished,
            "versions": sorted(set(rollout.weight_versions.tolist())),
            "shapes": [list(rollout.logprobs.shape), list(rollout.weight_versions.shape)],
            "text": rollout.text,
        }
        for rollout in group.rollouts
    ]


def measure(path: str) -> dict:
    torch.set_num_threads(1)
    config = configuration(path)
    engine = Engine(config)
    policy = load_policy(config.model, TEMPERATURE).eval()
    requests = make_requests(engine)

    def generate(which=requests, sampling=SAMPLING, step=1) -> list[Group]:
        return list(engine.generate(which, sampling, step))

    groups = generate()
    result: dict = {
        "eos": policy.adapter.tokenizer.eos_token_id,
        "banned": list(engine.adapter.banned_token_ids),
        "described": {group.prompt_id: describe(group) for group in groups},
        "initial": tokens(groups),
        "mismatch_initial": mismatch(engine, policy, requests, groups),
        "image_tokens": {
            request.prompt_id: engine.adapter.num_image_tokens(
                engine.adapter.encode(request.text, request.images)
            )
            for request in requests
        },
        "again": tokens(generate()),
        "reversed": tokens(generate(requests[::-1])),
        "alone": {key: value for request in requests for key, value in tokens(generate([request])).items()},
        "next_step": tokens(generate(step=2)),
        "greedy": tokens(generate(sampling=SamplingConfig(1, 16, TEMPERATURE, greedy=True))),
        "greedy_next_step": tokens(
            generate(sampling=SamplingConfig(1, 16, TEMPERATURE, greedy=True), step=2)
        ),
    }

    perturb(policy)
    result["mismatch_stale"] = mismatch(engine, policy, requests, generate())
    engine.load_weights(parts(weights(policy)), version=3)
    groups = generate()
    result |= {
        "after_load": tokens(groups),
        "mismatch_loaded": mismatch(engine, policy, requests, groups),
        "version_loaded": describe(groups[0])[0]["versions"],
    }

    crowd = [replace(requests[1], prompt_id=f"crowd{number}") for number in range(100)]  # more than run at once
    broken_off = engine.generate(crowd, SAMPLING, 1)
    next(broken_off)
    result["stale_cache_error"] = None
    try:
        engine.load_weights(parts(weights(policy)), version=4)
    except StaleCache as error:
        result["stale_cache_error"] = str(error)
    broken_off.close()
    engine.load_weights(parts(weights(policy)), version=3)
    result |= {"facts": asdict(engine.facts()), "after_break": tokens(generate())}

    incomplete = weights(policy)
    missing = [name for name in incomplete if name.endswith("layers.2.mlp.down_proj.weight")]
    for name in missing:
        del incomplete[name]
    result["missing"] = missing
    result["missing_error"] = None
    try:
        engine.load_weights(parts(incomplete), version=4)
    except NumericsError as error:
        result["missing_error"] = str(error)
    result["version_after_failure"] = engine.version

    perturb(policy, of_language)
    result["mismatch_language_stale"] = mismatch(engine, policy, requests, generate())
    engine.load_weights({"changing": parts(weights(policy))["changing"]}, version=5)
    result["mismatch_language_loaded"] = mismatch(engine, policy, requests, generate())
    result["missing_part_error"] = None
    try:
        engine.load_weights({"changing": parts(incomplete)["changing"]}, version=6)
    except NumericsError as error:
        result["missing_part_error"] = str(error)

    result["split_layers_error"] = None
    try:
        engine.load_weights(split_layers(weights(policy)), version=6)
    except NumericsError as error:
        result["split_layers_error"] = str(error)

    raise_media_logits(policy)
    engine.load_weights(parts(weights(policy)), version=7)
    groups = generate()
    result |= {
        "media_raised": tokens(groups),
        "media_share_without_ban": share_of_media_without_ban(policy, requests, groups),
        "mismatch_media_raised": mismatch(engine, policy, requests, groups),
    }

    train_adapters(policy)
    result["mismatch_adapters_stale"] = mismatch(engine, policy, requests, generate())
    engine.load_weights(parts_under_lora(policy), version=8)
    result["mismatch_adapters_loaded"] = mismatch(engine, policy, requests, generate())
    return result


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(measure(sys.argv[1])))
