"""Which kernel attention over segments takes, and that it speaks to each as that kernel's contract says.

No GPU is there: plain products stand in for the two GPU kernels, behind torch's own operators and their schemas.
"""

from __future__ import annotations

import pytest
import torch

from mixed_r1_ray.config import ModelConfig
from mixed_r1_ray.policy import segment_attention
from mixed_r1_ray.policy.group_attention import GroupAttention
from mixed_r1_ray.policy.loading import load_policy
from mixed_r1_ray.policy.segment_attention import kernel_for

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
PROMPTS, RESPONSES = [3, 5], [[2, 9, 1], [40]]


@pytest.mark.parametrize(
    ("device", "dtype", "head", "capability", "expected"),
    [
        (CUDA, torch.bfloat16, 128, (9, 0), "flash"),
        (CUDA, torch.float16, 80, (8, 0), "flash"),
        (CUDA, torch.float32, 128, (9, 0), "efficient"),
        (CUDA, torch.bfloat16, 100, (9, 0), "efficient"),
        (CUDA, torch.bfloat16, 288, (9, 0), "efficient"),
        (CUDA, torch.bfloat16, 128, (7, 5), "efficient"),
        (CPU, torch.bfloat16, 128, None, "cpu"),
    ],
)
def test_flash_attention_wherever_it_can_be_had(monkeypatch, device, dtype, head, capability, expected):
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert kernel_for(device, dtype, head) == expected


def test_a_torch_without_flash_attention_takes_the_memory_efficient_kernel(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: False)
    assert kernel_for(CUDA, torch.bfloat16, 128) == "efficient"


@pytest.mark.parametrize("has_gpu", [True, False])
def test_a_loaded_policy_takes_no_slow_kernel_on_a_gpu(monkeypatch, tiny_checkpoints, has_gpu):
    before = torch.backends.cuda.cudnn_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    try:
        torch.backends.cuda.enable_cudnn_sdp(True), torch.backends.cuda.enable_math_sdp(True)
        load_policy(ModelConfig(path=tiny_checkpoints["internvl"]), 1.0)
        assert (torch.backends.cuda.cudnn_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()) == (False, not has_gpu)
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before[0]), torch.backends.cuda.enable_math_sdp(before[1])


def scores(query, key, causal, scale):
    """(T, H, D), (K, H, D) -> (H, T, K), future keys at minus infinity."""
    found = torch.einsum("thd,khd->htk", query, key) * scale
    return found.masked_fill(torch.ones_like(found[0], dtype=torch.bool).triu(1), -torch.inf) if causal else found


def one_forward(query, key, value, causal, scale):
    found = scores(query, key, causal, scale)
    return torch.einsum("htk,khd->thd", found.softmax(-1), value), found.logsumexp(-1)


def one_backward(grad, query, key, value, output, lse, causal, scale):
    share = (scores(query, key, causal, scale) - lse.unsqueeze(-1)).exp()
    change = share * (torch.einsum("thd,khd->htk", grad, value) - (grad * output).sum(-1).T.unsqueeze(-1))
    return (
        torch.einsum("htk,khd->thd", change, key) * scale,
        torch.einsum("htk,thd->khd", change, query) * scale,
        torch.einsum("htk,thd->khd", share, grad),
    )


class FlashContract:
    """FlashAttention over segments: (tokens, heads, D), log-sum-exps (heads, tokens), grouped heads as they are."""

    def __init__(self):
        self.calls = 0

    def forward(self, query, key, value, starts, key_starts, longest, longest_key, dropout, causal, debug, **options):
        self.calls += 1
        assert starts.dtype == key_starts.dtype == torch.int32 and query.stride(-1) == 1 and dropout == 0.0
        assert (longest, longest_key) == (int(starts.diff().max()), int(key_starts.diff().max()))
        output, lse = torch.empty_like(query), query.new_empty(query.shape[1], len(query))
        wide_key, wide_value = (part.repeat_interleave(query.shape[1] // part.shape[1], 1) for part in (key, value))
        for q, k in self._segments(starts, key_starts):
            output[q], lse[:, q] = one_forward(query[q], wide_key[k], wide_value[k], causal, options["scale"])
        return output, lse, torch.zeros(2, dtype=torch.uint64), query.new_empty(0), query.new_empty(0)

    def backward(self, grad, query, key, value, output, lse, starts, key_starts, longest, longest_key, dropout, causal, *_, scale, **__):
        assert lse.is_contiguous() and lse.shape == query.shape[1::-1] and grad.is_contiguous()
        grads = [torch.zeros_like(part) for part in (query, key, value)]
        times = query.shape[1] // key.shape[1]
        wide_key, wide_value = (part.repeat_interleave(times, 1) for part in (key, value))
        for q, k in self._segments(starts, key_starts):
            parts = one_backward(grad[q], query[q], wide_key[k], wide_value[k], output[q], lse[:, q], causal, scale)
            grads[0][q] = parts[0]
            for whole, part in zip(grads[1:], parts[1:], strict=True):
                whole[k] = part.unflatten(1, (-1, times)).sum(2)
        return tuple(grads)

    @staticmethod
    def _segments(starts, key_starts):
        bounds = zip(starts.tolist(), starts.tolist()[1:], key_starts.tolist(), key_starts.tolist()[1:], strict=False)
        return [(slice(a, b), slice(c, d)) for a, b, c, d in bounds]


class EfficientContract:
    """The memory-efficient kernel: (S, T, heads, D), as many key heads, log-sum-exps padded to a multiple of 32."""

    def __init__(self):
        self.calls = 0

    def forward(self, query, key, value, bias, starts, key_starts, longest, longest_key, dropout, mask_type, with_lse, **options):
        self.calls += 1
        assert query.shape[2] == key.shape[2] == value.shape[2] and bias is starts is None and with_lse
        found = [one_forward(*parts, bool(mask_type), options["scale"]) for parts in zip(query, key, value, strict=True)]
        outputs, lses = map(torch.stack, zip(*found, strict=True))
        lses = torch.nn.functional.pad(lses, (0, -query.shape[1] % 32), value=torch.inf)
        seed = torch.zeros((), dtype=torch.int64)
        return outputs, lses, seed, seed, query.shape[1], key.shape[1]

    def backward(self, grad, query, key, value, bias, output, starts, key_starts, longest, longest_key, lse, *rest, scale, **_):
        mask_type, length = rest[3], query.shape[1]
        assert lse.shape[2] % 32 == 0 and (longest, longest_key) == (length, key.shape[1])
        parts = zip(grad, query, key, value, output, lse[:, :, :length], strict=True)
        found = [one_backward(*part, bool(mask_type), scale) for part in parts]
        return *map(torch.stack, zip(*found, strict=True)), query.new_empty(0)


@pytest.mark.parametrize(("kernel", "contract", "calls"), [("flash", FlashContract, 2), ("efficient", EfficientContract, 6)])
def test_gpu_kernels_are_called_as_their_contracts_say(monkeypatch, kernel, contract, calls):
    """The CPU's results, which test_group_attention.py holds against a written out mask, and as few calls as planned."""
    length = sum(PROMPTS) + sum(map(sum, RESPONSES))
    inputs = [torch.randn(1, heads, length, 8, dtype=torch.float64, requires_grad=True) for heads in (4, 2, 2)]
    expected = results(inputs)
    double = contract()
    operators = torch.library.Library("aten", "IMPL")
    operators.impl(f"_{kernel}_attention_forward", double.forward, "CPU")
    operators.impl(f"_{kernel}_attention_backward", double.backward, "CPU")
    monkeypatch.setattr(segment_attention, "kernel_for", lambda *_: kernel)
    try:
        found = results(inputs)
    finally:
        operators._destroy()
    assert double.calls == calls
    for ours, right in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, right, rtol=0, atol=1e-12)


def results(inputs):
    output = GroupAttention.plan(PROMPTS, RESPONSES)(*inputs)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype, device=output.device).view_as(output)
    return output, *torch.autograd.grad((output * weights).sum(), inputs)


def test_flash_attention_takes_what_it_is_given_by_its_operators_own_shapes(monkeypatch):
    """On tensors without content, with torch's operators themselves: arguments, their order, the shapes that come out."""
    monkeypatch.setattr(segment_attention, "kernel_for", lambda *_: "flash")
    length = sum(PROMPTS) + sum(map(sum, RESPONSES))
    inputs = [
        torch.empty(1, heads, length, 64, dtype=torch.bfloat16, device="meta", requires_grad=True) for heads in (4, 2, 2)
    ]
    output, *grads = results(inputs)
    assert output.shape == (1, length, 4, 64) and [part.shape for part in grads] == [part.shape for part in inputs]
