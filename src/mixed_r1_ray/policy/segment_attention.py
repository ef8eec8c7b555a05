"""Attention within segments of different lengths, without a mask, and the kernels that compute it.

On a GPU with 16-bit numbers FlashAttention takes all segments in one call, grouped heads included. Elsewhere segments
of similar length are computed together, by torch's FlashAttention on a CPU and its memory-efficient kernel on a GPU.
All of them return the log-sum-exp of the scores and take it back for the gradient. So what queries see in several
places can be computed place by place and joined, as ring attention does over devices (Liu et al. 2023, 2310.01889).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mixed_r1_ray.policy.segments import Segments

LONGEST_HEAD = 256  # that FlashAttention takes
LSE_ALIGNMENT = 32  # of the memory-efficient kernel's log-sum-exps

Kernel = Literal["flash", "efficient", "cpu"]
KERNEL_NAMES: dict[Kernel, str] = {
    "flash": "FlashAttention over variable lengths",
    "efficient": "memory-efficient attention over similar lengths",
    "cpu": "FlashAttention on the CPU over similar lengths",
}


def kernel_for(device: torch.device, dtype: torch.dtype, head_size: int) -> Kernel:
    """FlashAttention wants compute capability 8 or newer, 16 bits, and heads of a multiple of 8 up to 256."""
    if device.type != "cuda":
        return "cpu"
    fits = dtype in (torch.bfloat16, torch.float16) and head_size % 8 == 0 and head_size <= LONGEST_HEAD
    return "flash" if fits and _has_flash(device) else "efficient"


def _has_flash(device: torch.device) -> bool:
    return torch.backends.cuda.is_flash_attention_available() and torch.cuda.get_device_capability(device) >= (8, 0)


def refuse_slow_kernels() -> None:
    """For what still goes through torch's own choice, a tower without windows: an error rather than a slow kernel.

    cuDNN's plans anew for every shape; the unfused one holds all scores in float32. A CPU has its own order.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)
    if torch.cuda.is_available():
        torch.backends.cuda.enable_math_sdp(False)


def attend(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float) -> tuple[Tensor, Tensor]:
    """query (L, H, D); key, value (K, Hk, D), Hk a divisor of H -> outputs (L, H, D), log-sum-exps (H, L).

    Log-sum-exps are float32, of float64 inputs float64. Leaves no graph: `attend_backward` makes the gradient.
    """
    kernel = _kernel_of(query)
    if kernel == "flash":
        output, lse, *_ = torch.ops.aten._flash_attention_forward(
            query, key, value, *_flash_arguments(segments), False, scale=scale
        )
        return output, lse
    output = torch.empty_like(query, memory_format=torch.contiguous_format)
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    lse = query.new_empty(query.shape[:2], dtype=wide)
    for bucket in segments.buckets:
        parts = bucket.queries.gather(query), bucket.keys.gather(key), bucket.keys.gather(value)
        bucket_output, bucket_lse = _forward_alike(kernel, *parts, segments.causal, scale)
        bucket.queries.scatter(bucket_output, output)
        bucket.queries.scatter(bucket_lse.transpose(1, 2), lse)
    return output, lse.transpose(0, 1)


def attend_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor, lse: Tensor, segments: Segments, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value, given `grad`, that of the outputs.

    output, lse: over all that the queries see. Where `segments` are part of that, so is the gradient: with
    P = exp(S - lse), the probabilities among all keys, dS = P (dO V' - dO . O), dQ = dS K, dK = dS' Q, dV = P' dO.
    """
    kernel = _kernel_of(query)
    if kernel == "flash":
        no_dropout = torch.zeros(2, dtype=torch.uint64, device=query.device)
        tensors = (grad.contiguous(), query, key, value, output, lse.contiguous())
        return torch.ops.aten._flash_attention_backward(
            *tensors, *_flash_arguments(segments), no_dropout, query.new_empty(0), scale=scale
        )
    grads = [torch.zeros_like(part, memory_format=torch.contiguous_format) for part in (query, key, value)]
    for bucket in segments.buckets:
        queries, keys = bucket.queries, bucket.keys
        parts = queries.gather(query), keys.gather(key), keys.gather(value), queries.gather(output)
        unseen = queries.gather_real(lse.transpose(0, 1), torch.inf).transpose(1, 2)  # of padding: exp(S - inf) = 0
        found = _backward_alike(kernel, queries.gather_real(grad, 0.0), *parts, unseen, segments.causal, scale)
        for places, part, whole in zip((queries, keys, keys), found, grads, strict=True):
            places.scatter(part, whole)
    return tuple(grads)


def join(output: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs (L, H, D) and log-sum-exps (H, L) over the keys of both, from those over the keys of each."""
    both = torch.logaddexp(lse, other_lse)
    shares = [(part - both).exp().transpose(0, 1).unsqueeze(-1) for part in (lse, other_lse)]
    return (shares[0] * output + shares[1] * other).to(output.dtype), both


def _kernel_of(query: Tensor) -> Kernel:
    return kernel_for(query.device, query.dtype, query.shape[-1])


def _flash_arguments(segments: Segments) -> tuple:
    longest = max(segments.query_lengths), max(segments.key_lengths)
    return segments.query_starts, segments.key_starts, *longest, 0.0, segments.causal


def _forward_alike(
    kernel: Kernel, query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """query (S, T, H, D); key, value (S, K, Hk, D) -> outputs (S, T, H, D), log-sum-exps (S, H, T)."""
    if kernel == "cpu":
        heads_first = (part.transpose(1, 2) for part in (query, key, value))
        output, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*heads_first, 0.0, causal, scale=scale)
        return output.transpose(1, 2), lse
    key, value = (_as_many_heads(part, query) for part in (key, value))
    output, lse, *_ = torch.ops.aten._efficient_attention_forward(
        query, key, value, None, None, None, None, None, 0.0, int(causal), True, scale=scale
    )
    return output, lse[:, :, : query.shape[1]]


def _backward_alike(
    kernel: Kernel, grad: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor, lse: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of query, key, value; shapes as in `_forward_alike`."""
    if kernel == "cpu":
        heads_first = [part.transpose(1, 2) for part in (grad, query, key, value, output)]
        found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            *heads_first, lse, 0.0, causal, scale=scale
        )
        return tuple(part.transpose(1, 2) for part in found)
    groups, lengths = key.shape[2], (query.shape[1], key.shape[1])
    key, value = (_as_many_heads(part, query) for part in (key, value))
    lse = torch.nn.functional.pad(lse, (0, -lengths[0] % LSE_ALIGNMENT), value=torch.inf)
    seed = torch.zeros((), dtype=torch.int64, device=query.device)  # of a dropout that is not
    grads = torch.ops.aten._efficient_attention_backward(
        grad, query, key, value, None, output, None, None, *lengths, lse, 0.0, seed, seed, int(causal), False, scale=scale
    )
    return grads[0], *(part.unflatten(2, (groups, -1)).sum(3) for part in grads[1:3])


def _as_many_heads(part: Tensor, query: Tensor) -> Tensor:
    return part.repeat_interleave(query.shape[2] // part.shape[2], dim=2)
