"""Attention over packed groups that computes no score it would mask, and needs no mask.

A group of P prompt tokens and G responses of T tokens has (P + G T)^2 scores, of which P^2 + G T (P + T) count. A token
sees the past of its own prompt or response, and a response's tokens see their whole prompt besides: two calls over
segments of the sequence, joined by their log-sum-exps. PrefixGrouper (2506.05433) splits attention alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from mixed_r1_ray.policy.segment_attention import attend, attend_backward, join
from mixed_r1_ray.policy.segments import Segments

LANGUAGE, VISION = "packed_groups", "flash_segments"  # in transformers' table of attention functions


@dataclass(frozen=True, slots=True)
class GroupAttention:
    """For one sequence of L tokens: all prompts, then the responses to the first of them, to the second, ..."""

    own: Segments  # each prompt and each response: its own past
    prompts: Segments  # the responses to each prompt: all of the prompt

    @classmethod
    def plan(cls, prompt_lengths: Sequence[int], response_lengths: Sequence[Sequence[int]]) -> GroupAttention:
        """response_lengths[b]: of each response to prompt b."""
        own = Segments.within([*prompt_lengths, *(length for row in response_lengths for length in row)], causal=True)
        return cls(own, Segments.across([sum(row) for row in response_lengths], prompt_lengths))

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None = None) -> Tensor:
        """query (1, H, L, D); key, value the same, or with a divisor of H heads -> (1, L, H, D)."""
        return _attend(query, key, value, scale, self.own, self.prompts)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, scale: float | None, own: Segments, prompts: Segments | None = None
) -> Tensor:
    """Shapes as in `GroupAttention.__call__`."""
    flat = (part[0].transpose(0, 1) for part in (query, key, value))
    return _Attend.apply(*flat, scale or query.shape[-1] ** -0.5, own, prompts).unsqueeze(0)


class _Attend(torch.autograd.Function):
    """query (L, H, D); key, value (L, Hk, D) -> (L, H, D). Keeps these and the log-sum-exps, each once."""

    @staticmethod
    def forward(
        ctx, query: Tensor, key: Tensor, value: Tensor, scale: float, own: Segments, prompts: Segments | None
    ) -> Tensor:
        output, lse = attend(query, key, value, own, scale)
        if prompts is not None:
            p = sum(prompts.key_lengths)
            seen = attend(query[p:], key[:p], value[:p], prompts, scale)
            output[p:], lse[:, p:] = join(output[p:], lse[:, p:], *seen)
        ctx.save_for_backward(query, key, value, output, lse)
        ctx.settings = scale, own, prompts
        return output

    @staticmethod
    def backward(ctx, grad: Tensor):
        query, key, value, output, lse = ctx.saved_tensors
        scale, own, prompts = ctx.settings
        grads = attend_backward(grad, query, key, value, output, lse, own, scale)
        if prompts is not None:
            p = sum(prompts.key_lengths)
            of_responses = grad[p:], query[p:], key[:p], value[:p], output[p:], lse[:, p:]
            more = attend_backward(*of_responses, prompts, scale)
            for whole, part in zip((grads[0][p:], grads[1][:p], grads[2][:p]), more, strict=True):
                whole += part
        return *grads, None, None, None


def register() -> dict[str, str]:
    """Makes these attentions known to transformers; returns the names to load a vision-language model with."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    for name, function in ((LANGUAGE, _language_attention), (VISION, _vision_attention)):
        AttentionInterface.register(name, function)
        AttentionMaskInterface.register(name, sdpa_mask)
    return {"text_config": LANGUAGE, "vision_config": "sdpa"}


def attend_in_segments(model: nn.Module) -> None:
    """Gives the vision tower of a loaded model its attention.

    transformers tells where windows and pictures end only to a name with `flash` in it, and while it loads a model it
    looks for a package behind such a name.
    """
    model.config.vision_config._attn_implementation = VISION


def _language_attention(module, query, key, value, attention_mask, scaling=None, **kwargs):
    """Called by transformers in each layer. With an ordinary mask it is ordinary attention."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if isinstance(attention_mask, GroupAttention):
        return attention_mask(query, key, value, scaling), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)


def _vision_attention(module, query, key, value, attention_mask, scaling=None, cu_seq_lens_q=None, **kwargs):
    """Likewise. Towers that cut their patches into windows or pictures say where: one call a layer, not one a window."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if cu_seq_lens_q is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    return _attend(query, key, value, scaling, _segments_of(cu_seq_lens_q)), None


_known: WeakIdKeyDictionary = WeakIdKeyDictionary()


def _segments_of(starts: Tensor) -> Segments:
    """starts: int32 (segments + 1,). All layers of a forward have the same tensor, and its lengths are read once."""
    if starts not in _known:
        lengths = tuple(starts.diff().tolist())
        _known[starts] = Segments(lengths, lengths, False, starts, starts)
    return _known[starts]
