"""Bytes that each actor of a run holds, part by part, as the code holds them.

Exact: weights, gradients, optimizer (DeepSpeed ZeRO-3 shards), KV cache a token. Counted from the code, and held
against counts in tests/scale/test_memory.py: what the backward pass keeps. Upper estimates: the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..cluster_plan import has_reference_worker
from ..config import Config
from ..sync.ways import chosen_way
from .architecture import Architecture, Language
from .hardware import GIB
from .workload import Workload

ADAM_BYTES = 12  # a trained parameter: float32 copy, two moments
SCORES_BYTES = 256 * 2**20  # of a chunk of scores over the vocabulary: CHUNK_BYTES of policy/head.py
LIVE_PARAMETERS = 10**9  # DeepSpeed's stage3_max_live_parameters
REDUCE_BUCKET = 5 * 10**8  # numbers: that of policy/learner.py
GRADIENT_BYTES = 4  # added over microbatches and ranks in float32
ENGINE_WORKSPACE = 3 * GIB  # choice: activations of a prefill, CUDA graphs, the sampler's logits
DEVICE_RESERVE = 2 * GIB  # choice: CUDA context, NCCL buffers, fragmentation

KEPT = ("weights", "optimizer")  # between its turns; gradients are made anew by every update

BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Footprint:
    """Bytes of one actor by part: on each of its devices, and in the memory of its host."""

    device: dict[str, float] = field(default_factory=dict)
    host: dict[str, float] = field(default_factory=dict)

    @property
    def kept(self) -> float:
        """Bytes that go from its device to the host when others have their turn there."""
        return sum(self.device.get(part, 0) for part in KEPT)

    def asleep_on_host(self) -> Footprint:
        """The same actor, where it takes turns: the host holds buffers for what it keeps, also while it is awake."""
        kept = self.kept
        return Footprint(self.device, self.host | ({"asleep": kept} if kept else {}))

    def on_host(self) -> Footprint:
        """The same actor without a device."""
        parts = self.device | self.host
        return Footprint({}, {part: self.device.get(part, 0) + self.host.get(part, 0) for part in parts})


def footprints(config: Config, architecture: Architecture, device_bytes: float) -> dict[str, Footprint]:
    """Role -> footprint of one of its actors; roles whose memory does not follow from the model are left out."""
    work = Workload.at_most(config, architecture)
    found = {
        "rollout": rollout_footprint(config, architecture, device_bytes),
        "learner": learner_footprint(config, architecture, work),
    }
    if has_reference_worker(config):
        found["reference"] = reference_footprint(config, architecture, work)
    gpus = {role: getattr(config, role).gpus_per_worker for role in found}
    found = {role: part if gpus[role] else part.on_host() for role, part in found.items()}
    return {role: part.asleep_on_host() for role, part in found.items()} if config.cluster.share_gpus else found


def learner_footprint(config: Config, architecture: Architecture, work: Workload) -> Footprint:
    """One ZeRO-3 rank: shards of everything, whole layers in passing, and a microbatch's backward pass."""
    learner, number = config.learner, BYTES[config.model.dtype]
    ranks, trained = learner.num_workers, architecture.trained(learner.freeze, learner.lora_rank)
    held = architecture.parameters + architecture.language.lora_parameters(learner.lora_rank)
    bucket = min(trained, REDUCE_BUCKET)
    reduced = bucket + min(trained, max(bucket, architecture.largest_parameter))  # the bucket and a copy
    microbatch = learner_row(config, work)
    rows = max(1, learner.microbatch_tokens // microbatch.tokens)
    activations = activation_bytes(architecture.language, microbatch, number, learner.gradient_checkpointing)
    weights = {"weights": number * held / ranks}
    state = {"gradients": GRADIENT_BYTES * trained / ranks, "optimizer": ADAM_BYTES * trained / ranks}
    working = {
        "reduced": GRADIENT_BYTES * reduced,
        "activations": rows * activations,
        "scores": scores_bytes(architecture.language, rows * microbatch.scored),
    }
    if ranks > 1:
        working["gathered"] = number * min(held, LIVE_PARAMETERS)
    if not learner.lora_rank:
        working["head gradient"] = (4 + number) * architecture.language.embedding_parameters  # summed in float32
    if chosen_way(config) == "ipc":  # a copy for the engine, when the rest of this is free again
        working["weights lent"] = max(0.0, number * architecture.changing(learner.freeze) - sum(working.values()))
    written = {"checkpoint": ADAM_BYTES * trained / ranks}  # this rank's share, on the host while it is written
    if learner.offload == "none":
        return Footprint(weights | state | working, written)
    float32 = {"float32 gradients": 4 * trained / ranks}  # what AdamW reads there
    return Footprint(weights | working, state | float32 | written)


def rollout_footprint(config: Config, architecture: Architecture, device_bytes: float) -> Footprint:
    """One engine: vLLM takes its fraction of the device; what weights and workspace leave of it is KV cache."""
    rollout, number = config.rollout, BYTES[config.model.dtype]
    weights = number * architecture.parameters / max(1, rollout.gpus_per_worker)
    if rollout.gpus_per_worker == 0:
        return Footprint({"weights": weights, "KV cache": rollout.kv_cache_gib * GIB})
    cache = rollout.gpu_memory_fraction * device_bytes - weights - ENGINE_WORKSPACE
    return Footprint({"weights": weights, "workspace": ENGINE_WORKSPACE, "KV cache": cache})


def reference_footprint(config: Config, architecture: Architecture, work: Workload) -> Footprint:
    """Whole weights, and a whole group at once."""
    number, language = BYTES[config.model.dtype], architecture.language
    group = PackedRow(work.prompt_tokens, config.rollout.group_size, work.response_tokens)
    return Footprint(
        {
            "weights": number * architecture.parameters,
            "activations": number * group.tokens * (3 * language.mlp_width + 4 * language.width),
            "scores": scores_bytes(language, group.scored),
        }
    )


def object_store_bytes(config: Config, architecture: Architecture, nodes: int) -> dict[str, float]:
    """Of the fullest node: one version of the weights, and its share of the pictures of two batches."""
    work, vision = Workload.at_most(config, architecture), architecture.vision
    patches = work.picture_tokens * vision.patches_per_token
    pixels = 4 * patches * vision.values_per_patch  # float32, as processors make them
    decoded = 3 * work.picture_tokens * vision.token_pixels
    batches = 2 * config.rollout.prompts_per_step / nodes
    return {"weights": BYTES[config.model.dtype] * architecture.parameters, "pictures": batches * (pixels + decoded)}


@dataclass(frozen=True)
class PackedRow:
    """A prompt and its responses, as policy/packing.py lays them out."""

    prompt: int
    responses: int
    length: int

    @property
    def scored(self) -> int:
        """Tokens whose log-probability is wanted."""
        return self.responses * self.length

    @property
    def tokens(self) -> int:
        return self.prompt + self.scored


def learner_row(config: Config, work: Workload) -> PackedRow:
    """A prompt with as many responses as a microbatch takes."""
    responses = max(1, (config.learner.microbatch_tokens - work.prompt_tokens) // work.response_tokens)
    return PackedRow(work.prompt_tokens, min(responses, config.rollout.group_size), work.response_tokens)


def kept_bytes(language: Language, row: PackedRow, number: int, checkpointing: bool) -> float:
    """What a forward pass of the language model's layers keeps of one row for the backward pass.

    In every layer: 4 tensors of the MLP's width, 4 of the model's (norm outputs, queries, attention outputs), keys and
    values, float32 input and output of two norms, and a log-sum-exp a head. With checkpointing: the layer's input.
    Behind the layers a last norm.
    """
    a_layer = number * language.width if checkpointing else _token_bytes(language, number)
    return row.tokens * (language.layers * a_layer + (4 + number) * language.width)


def activation_bytes(language: Language, row: PackedRow, number: int, checkpointing: bool) -> float:
    """The most of one row that is there at once, in the backward pass: what is kept, and what one layer's pass makes.

    With checkpointing that layer is computed anew. Its gradients are 2 tensors of the MLP's width and 3 of the model's.
    """
    passing = number * (2 * language.mlp_width + 3 * language.width)
    recomputed = _token_bytes(language, number) if checkpointing else 0
    return kept_bytes(language, row, number, checkpointing) + row.tokens * (recomputed + passing)


def _token_bytes(language: Language, number: int) -> float:
    """What one layer keeps of a token where it keeps all."""
    width = language.width
    in_their_type = number * (4 * language.mlp_width + 4 * width + 2 * language.kv_width)
    return in_their_type + 2 * (4 + number) * width + 4 * language.heads


def scores_bytes(language: Language, tokens: int) -> float:
    """Scores over the vocabulary that are alive while `tokens` are judged: two chunks of them in float32."""
    return 2 * min(SCORES_BYTES, 4 * tokens * language.vocabulary)
