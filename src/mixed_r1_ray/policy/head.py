"""Hidden states to log-probabilities, without ever holding all scores over the vocabulary.

N tokens have N V scores; at V = 152k one token's are 0.6 MB in float32, several times over with what a log-softmax
keeps for its backward pass. So rows are taken a chunk at a time, and scores are computed again in the backward pass.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from mixed_r1_ray.vlm.base import BANNED_BIAS

# Float32 scores of a chunk (choice); two such tensors are alive at once. Every chunk reads the whole head and adds to
# its whole gradient, so small ones cost time. At V = 152k one is 441 tokens.
CHUNK_BYTES = 256 * 2**20


class TokenLogprobs(nn.Module):
    """The output head, read at given tokens.

    It shares the head's weight, and the loop over chunks is inside one call: ZeRO-3's hooks gather the weight once for
    the forward and once for the backward pass, however many chunks a rank's tokens make, so ranks keep in step.
    """

    def __init__(self, head: nn.Linear):
        super().__init__()
        self.weight = head.weight

    def forward(
        self,
        hidden: torch.Tensor,
        target_ids: torch.Tensor,
        banned_token_ids: tuple[int, ...],
        temperature: float,
        entropy_gradient: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `token_logprobs`."""
        return token_logprobs(hidden, self.weight, target_ids, banned_token_ids, temperature, entropy_gradient)


def token_logprobs(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    target_ids: torch.Tensor,
    banned_token_ids: tuple[int, ...],
    temperature: float,
    entropy_gradient: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each target and entropy of each row, in nats: (N,), (N,), float32 or wider.

    hidden (N, H), weight (V, H), target_ids int64 (N,). The distribution is softmax of hidden weight^T, in the dtype of
    both, then in float32 with BANNED_BIAS on `banned_token_ids` and over `temperature`. Entropy carries a gradient only
    where it is asked for.
    """
    bias = torch.zeros(len(weight), dtype=_wide(weight), device=weight.device)
    bias.index_fill_(0, torch.tensor(banned_token_ids, dtype=torch.int64, device=weight.device), BANNED_BIAS)
    return _ChunkedLogprobs.apply(hidden, weight, target_ids, bias, temperature, entropy_gradient)


class _ChunkedLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, target_ids, bias, temperature, entropy_gradient):
        parts = [
            _chosen_and_entropy(_logprobs(rows, weight, bias, temperature), targets)
            for rows, targets in _chunks(weight, hidden, target_ids)
        ]
        chosen, entropy = (torch.cat(part) for part in zip(*parts, strict=True))
        if not entropy_gradient:
            ctx.mark_non_differentiable(entropy)
        ctx.save_for_backward(hidden, weight, target_ids, bias, entropy)
        ctx.temperature, ctx.entropy_gradient = temperature, entropy_gradient
        return chosen, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx, to_chosen, to_entropy):
        hidden, weight, target_ids, bias, entropy = ctx.saved_tensors
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        to_hidden = []
        # Float32, however narrow the weight: many chunks are added up.
        to_weight = torch.zeros_like(weight, dtype=_wide(weight)) if wants_weight else None
        for rows, *of_rows in _chunks(weight, hidden, target_ids, entropy, to_chosen, to_entropy):
            logprobs = _logprobs(rows, weight, bias, ctx.temperature)
            to_scores = _gradient(logprobs, *of_rows, ctx.entropy_gradient).div_(ctx.temperature).to(weight.dtype)
            if wants_hidden:
                to_hidden.append(to_scores @ weight)
            if wants_weight:
                to_weight += to_scores.t() @ rows
            del logprobs, to_scores  # before the next chunk's are made
        return (
            torch.cat(to_hidden) if wants_hidden else None,
            to_weight.to(weight.dtype) if wants_weight else None,
            *(None,) * 4,
        )


def _chosen_and_entropy(logprobs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return logprobs.gather(1, targets.unsqueeze(1)).squeeze(1), -logprobs.exp().mul_(logprobs).sum(1)


def _gradient(
    logprobs: torch.Tensor,
    targets: torch.Tensor,
    entropy: torch.Tensor,
    to_chosen: torch.Tensor,
    to_entropy: torch.Tensor,
    entropy_gradient: bool,
) -> torch.Tensor:
    """What reaches the scores, (n, V), in place of `logprobs`. For a row's distribution p, target c, entropy h:

    d log p_c / d score_j = [j = c] - p_j        d h / d score_j = -p_j (log p_j + h)
    """
    targets, to_chosen = targets.unsqueeze(1), to_chosen.unsqueeze(1)
    slope = to_chosen
    if entropy_gradient:
        slope = (logprobs + entropy.unsqueeze(1)).mul_(to_entropy.unsqueeze(1)).add_(to_chosen)
    return logprobs.exp_().mul_(slope).neg_().scatter_add_(1, targets, to_chosen)


def _chunks(weight: torch.Tensor, *tensors: torch.Tensor):
    """The rows of all `tensors`, as many at a time as CHUNK_BYTES allows; one chunk of none for no rows."""
    rows = max(1, CHUNK_BYTES // (_wide(weight).itemsize * len(weight)))
    return zip(*(tensor.split(rows) for tensor in tensors), strict=True)


def _logprobs(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, temperature: float) -> torch.Tensor:
    """(n, H), (V, H) -> (n, V)"""
    scores = (rows @ weight.t()).to(bias.dtype)
    return scores.add_(bias).div_(temperature).log_softmax(1)


def _wide(weight: torch.Tensor) -> torch.dtype:
    return torch.promote_types(weight.dtype, torch.float32)
