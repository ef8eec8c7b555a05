"""What the pipeline must know about a model family, and nothing else of it.

An adapter has a light half (processor only: prompts, token ids, picture limits), used by data workers and engines, and
a heavy half (the model: picture features, position ids), used where log-probabilities are computed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mixed_r1_ray.config import ModelConfig
from mixed_r1_ray.types import BoxFrame, PromptInputs

if TYPE_CHECKING:
    import torch
    from torch import nn

BANNED_BIAS = -100.0  # added to the logits of media tokens, by engine and trainer alike (vLLM's logit_bias ends here)


class VLMAdapter(ABC):
    """One model family. `processor` is the checkpoint's own, its picture limits set from `ModelConfig`."""

    model_type: ClassVar[str]  # `model_type` in the checkpoint's config.json
    media_tokens: ClassVar[tuple[str, ...]]  # tokens that stand for media; the policy may never say them
    pixel_inputs: ClassVar[tuple[str, ...]]  # the processor's outputs that the vision tower takes
    vision_prefixes: ClassVar[tuple[str, ...]]  # of parameter names, for freezing; the projector's go first
    projector_prefixes: ClassVar[tuple[str, ...]]

    def __init__(self, processor, image_token_id: int, config: ModelConfig):
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.image_token_id = image_token_id
        self.config = config
        vocabulary = self.tokenizer.get_vocab()
        self.banned_token_ids: tuple[int, ...] = tuple(
            sorted({image_token_id} | {vocabulary[token] for token in self.media_tokens if token in vocabulary})
        )

    def prompt_text(self, question: str, num_images: int, system: str | None = None) -> str:
        """The chat-formatted prompt, one *unexpanded* placeholder a picture, pictures ahead of the question.

        Raises ValueError for a question that holds a media token: it would be taken for one more picture.
        """
        for token in self.media_tokens:
            if token in question:
                raise ValueError(f"the question holds {token!r}, which stands for a picture; pictures go ahead of the text")
        content = [{"type": "image"}] * num_images + [{"type": "text", "text": question}]
        messages = [{"role": "user", "content": content}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
        return self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)

    def encode(self, text: str, images: Sequence[np.ndarray]) -> PromptInputs:
        """Tokens of `text` with placeholders expanded, and the pictures as the vision tower takes them.

        images: uint8 (H, W, 3) RGB arrays, one a placeholder.
        """
        layout = {"input_data_format": "channels_last"} if images else {}  # else guessed, wrongly at a height of 1 or 3
        outputs = self.processor(
            text=[text], images=list(images) or None, return_tensors="np", **layout, **self.processor_kwargs()
        )
        return PromptInputs(
            input_ids=np.asarray(outputs["input_ids"][0], dtype=np.int64),
            pixels={name: np.asarray(outputs[name]) for name in self.pixel_inputs if name in outputs},
        )

    def num_image_tokens(self, inputs: PromptInputs) -> int:
        return int((inputs.input_ids == self.image_token_id).sum())

    def engine_kwargs(self) -> dict:
        """What vLLM must be told so that its own processor makes the same tokens and pixels as `encode`."""
        limits = self.processor_kwargs()
        return {"mm_processor_kwargs": limits} if limits else {}

    @abstractmethod
    def processor_kwargs(self) -> dict:
        """Picture limits for each call of the processor, here and in the engine."""

    @abstractmethod
    def box_frame(self, width: int, height: int) -> BoxFrame:
        """The frame in which the model speaks of boxes in a picture of `width` x `height` original pixels."""

    @abstractmethod
    def image_features(self, model: nn.Module, pixels: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Embeddings of all pictures in the order of their placeholders, (image tokens, H)."""

    @abstractmethod
    def blank_picture(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """The smallest picture that the vision tower takes, all zeros."""

    @abstractmethod
    def prompt_positions(
        self, model: nn.Module, input_ids: torch.Tensor, pixels: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, int]:
        """Position ids of one prompt, (axes, P), and the position of the first response token."""

    def part_of(self, parameter_name: str) -> str:
        """`vision`, `projector` or `language`: what `learner.freeze` speaks of."""
        for part, prefixes in (("projector", self.projector_prefixes), ("vision", self.vision_prefixes)):
            if parameter_name.startswith(prefixes):
                return part
        return "language"
