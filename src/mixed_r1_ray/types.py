"""Everything that crosses an actor boundary, as frozen dataclasses.

Arrays are NumPy: the object store hands them out without a copy, and a process that needs no torch need not
import it.
Shapes: P prompt tokens (placeholders expanded), T response tokens, G responses a group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from ray import ObjectRef

REWARD_TYPES = ("matching", "chart", "iou", "open_ended", "math", "counting", "custom")
MAX_PICTURES = 8  # a prompt


@dataclass(frozen=True, slots=True)
class BoxFrame:
    """The size of the frame in which a model speaks of box coordinates (InternVL: 1000 x 1000)."""

    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of a batch: all that is small about it, and references to what is not."""

    prompt_id: str
    source: str
    reward_type: str
    question: str
    answer: str
    choices: tuple[str, ...] | None
    image_sizes: tuple[tuple[int, int], ...]  # (width, height) in original pixels
    box_frame: BoxFrame | None
    text: str  # what the engine is sent: one unexpanded placeholder a picture
    num_tokens: int  # P, after expansion
    images: ObjectRef | None = None  # tuple of uint8 (H, W, 3) RGB arrays
    inputs: ObjectRef | None = None  # PromptInputs


@dataclass(frozen=True, slots=True)
class PromptInputs:
    """What the trainer's forward needs of a prompt, made once and shared by its whole group."""

    input_ids: np.ndarray  # int64 (P,)
    pixels: Mapping[str, np.ndarray]  # named as the family's processor names them; empty without pictures


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What an engine is, where vLLM or the machine decided it."""

    device: str  # with the NVIDIA driver, on a GPU
    model_runner: str  # V1 or V2: they have different samplers, and draw differently from the same seeds
    attention: str  # vLLM's name of the backend, of the language model
    vision_attention: str
    cache_tokens: int  # that the KV cache has room for
    max_sequences: int  # that are decoded at once

    def __str__(self) -> str:
        return (
            f"{self.device}; vLLM model runner {self.model_runner}; attention {self.attention}, in the vision tower "
            f"{self.vision_attention}; KV cache of {self.cache_tokens:,} tokens; at most {self.max_sequences:,} sequences "
            "at once"
        )


@dataclass(frozen=True, slots=True)
class SamplingConfig:
    """How one call samples. `greedy` ignores temperature."""

    num_samples: int  # G
    max_new_tokens: int
    temperature: float = 1.0
    greedy: bool = False


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sampled response."""

    sample_index: int
    token_ids: np.ndarray  # int32 (T,), the end-of-sequence token included when it was sampled
    logprobs: np.ndarray  # float32 (T,), under the distribution that was sampled from
    weight_versions: np.ndarray  # int32 (T,), the version that made each token
    text: str  # special tokens of the chat format dropped
    finished: bool  # False: cut at max_new_tokens


@dataclass(frozen=True, slots=True)
class Group:
    """All responses to one prompt, ordered by sample_index."""

    prompt_id: str
    prompt_token_ids: np.ndarray  # int32 (P,), as the engine expanded them
    rollouts: tuple[Rollout, ...]


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """The small part of a finished group, streamed ahead of the Group itself."""

    prompt_id: str
    response_lengths: tuple[int, ...]
    finished: tuple[bool, ...]
    oldest_version: int

    @classmethod
    def of(cls, group: Group) -> GroupInfo:
        """Of a whole group."""
        return cls(
            prompt_id=group.prompt_id,
            response_lengths=tuple(len(rollout.token_ids) for rollout in group.rollouts),
            finished=tuple(rollout.finished for rollout in group.rollouts),
            oldest_version=min(int(rollout.weight_versions.min()) for rollout in group.rollouts),
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """How the trainer reads log-probabilities off its model: as configured, or as one supposes the engine does."""

    temperature: float | None = None  # None: the configured one
    ban: bool = True  # media tokens have no probability
    shift: int = 0  # predictions are read so many tokens further on
    own_positions: bool = False  # position ids from the model's own code instead of the packed layout's
    adapters: bool = True  # LoRA's; without them the policy is its reference
    pictures: ObjectRef | None = None  # PromptInputs whose pictures are looked at instead


@dataclass(frozen=True, slots=True)
class RewardBreakdown:
    """The reward of one response. None stands for 'could not be scored', never for 0."""

    reward_type: str
    total: float | None
    task: float | None
    format: float | None
    detail: str


@dataclass(frozen=True, slots=True)
class TrainGroup:
    """One group as the learners get it. Samples whose advantage is None are left out of the loss."""

    prompt_id: str
    num_prompt_tokens: int
    response_lengths: tuple[int, ...]
    advantages: tuple[float | None, ...]
    inputs: ObjectRef  # PromptInputs
    group: ObjectRef  # Group
    reference_logprobs: ObjectRef | None  # tuple of G float32 (T,) arrays; None at beta = 0


@dataclass(frozen=True, slots=True)
class TrainBatch:
    """A step's global batch, or one of its minibatches. The counts are of the samples that enter the loss."""

    step: int
    groups: tuple[TrainGroup, ...]
    num_samples: int
    num_tokens: int

    @classmethod
    def of(cls, step: int, groups: Sequence[TrainGroup]) -> TrainBatch:
        """The batch of these groups, counted."""
        live = [
            length
            for group in groups
            for length, advantage in zip(group.response_lengths, group.advantages, strict=True)
            if advantage is not None
        ]
        return cls(step, tuple(groups), num_samples=len(live), num_tokens=sum(live))


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a parameter lies in a run of bytes. dtype: torch's name, `bfloat16`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Parameters one behind the other. num_bytes: theirs and their padding's; packed_bytes: the checksum's as well."""

    slots: tuple[Slot, ...]
    num_bytes: int
    packed_bytes: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """Some of the policy's weights. content: uint8 (layout.packed_bytes,) as `sync.packed` lays it out."""

    layout: Layout
    content: ObjectRef


@dataclass(frozen=True, slots=True)
class WeightUpdate:
    """A version of the policy's weights in the object store, in buckets small enough to hold two of.

    constant: what training never changes, the same objects in each version.
    """

    version: int
    changing: tuple[Bucket, ...]
    constant: tuple[Bucket, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of every parameter that the buckets carry, each once."""
        return tuple(slot.name for bucket in (*self.changing, *self.constant) for slot in bucket.layout.slots)


@dataclass(frozen=True, slots=True)
class SaveRequest:
    """A checkpoint that the learners are to write into `folder` (runtime/checkpoints.py) and commit."""

    folder: str
    state: Mapping[str, Any]  # JSON: the driver's part of it
    files: Mapping[str, Mapping[str, Any]]  # what the driver has written there, sealed
    keep: int | None  # how many of the newest stay; None: all
    spare: int | None  # a step whose checkpoint stays besides
    deadline_s: float
