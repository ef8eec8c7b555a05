"""Log-probabilities of sampled tokens under a policy: the one forward that learner and reference share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from mixed_r1_ray.policy.device import to_device
from mixed_r1_ray.policy.head import TokenLogprobs
from mixed_r1_ray.policy.packing import PackedGroups, pack
from mixed_r1_ray.policy.segment_attention import KERNEL_NAMES, kernel_for
from mixed_r1_ray.types import PromptInputs
from mixed_r1_ray.vlm.base import VLMAdapter


class PolicyModel(nn.Module):
    """A vision-language model as a distribution over responses.

    Wraps the model so that ZeRO sees one forward: pictures once a prompt, packed language pass, log-softmax only where
    a response token is predicted.
    """

    entropy_gradient = False  # an entropy bonus wants one

    def __init__(self, model: nn.Module, adapter: VLMAdapter, temperature: float, train_vision: bool = True):
        super().__init__()
        self.model = model
        self.token_logprobs = TokenLogprobs(model.lm_head)
        self.adapter = adapter
        self.temperature = temperature
        self.train_vision = train_vision

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def attention_kernel(self) -> str:
        """What computes the language model's attention, in words."""
        text = self.model.config.get_text_config()
        head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return KERNEL_NAMES[kernel_for(self.device, self.model.dtype, head_size)]

    def pack(self, prompts: Sequence[PromptInputs], responses: Sequence[Sequence[np.ndarray]]) -> PackedGroups:
        """As `packing.pack`, on the policy's device."""
        return to_device(pack(prompts, responses, self.adapter, self.model), self.device)

    def forward(self, packed: PackedGroups) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability and entropy of the distribution each response token was drawn from, float32 (N,) each.

        The distribution is the engine's: logits over temperature, media tokens banned. Entropy carries a
        gradient only where `entropy_gradient` is set.
        """
        embeddings = self._insert_pictures(self.model.get_input_embeddings()(packed.input_ids), packed)
        hidden = self.model.model.language_model(
            inputs_embeds=embeddings,
            attention_mask={"full_attention": packed.attention},  # by kind of layer, as transformers keeps ready masks
            position_ids=_text_positions(packed.position_ids),
            use_cache=False,
        ).last_hidden_state
        predicting, banned = hidden[0, packed.source_index], self.adapter.banned_token_ids
        return self.token_logprobs(predicting, packed.target_ids, banned, self.temperature, self.entropy_gradient)

    def _insert_pictures(self, embeddings: torch.Tensor, packed: PackedGroups) -> torch.Tensor:
        """Without pictures a blank one is looked at in vain: ZeRO-3 gathers the tower's weights on all ranks or hangs."""
        pixels = packed.pixels or self.adapter.blank_picture(self.model)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.train_vision):
            features = self.adapter.image_features(self.model, pixels).to(embeddings.dtype)
        placeholders = packed.input_ids == self.adapter.image_token_id
        found, expected = int(placeholders.sum()), len(features) if packed.pixels else 0
        if found != expected:
            raise ValueError(f"{found} image tokens in the prompts but {expected} image features")
        if not packed.pixels:
            return embeddings + 0.0 * features.sum()
        return embeddings.masked_scatter(placeholders.unsqueeze(-1), features)


def _text_positions(position_ids: torch.Tensor) -> torch.Tensor:
    """One axis goes as (B, L), several (M-RoPE) as (axes, B, L)."""
    return position_ids[0] if len(position_ids) == 1 else position_ids
