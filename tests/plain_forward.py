"""One sample as anybody would score it: the model's own forward on prompt and response, nothing shared, nothing packed."""

from __future__ import annotations

import numpy as np
import torch

from mixed_r1_ray.policy.logprobs import PolicyModel
from mixed_r1_ray.types import PromptInputs


def plain_logprobs(policy: PolicyModel, prompt: PromptInputs, response: np.ndarray) -> torch.Tensor:
    """Log-probabilities of the response's tokens, (T,): a log-softmax without the media tokens, over temperature."""
    input_ids = torch.tensor([[*prompt.input_ids.tolist(), *response.tolist()]])
    inputs = {name: torch.from_numpy(np.array(array)) for name, array in prompt.pixels.items()}
    if policy.adapter.model_type == "qwen2_5_vl" and inputs:
        types = (torch.from_numpy(np.array(prompt.input_ids)) == policy.model.config.image_token_id).int()
        inputs["mm_token_type_ids"] = torch.nn.functional.pad(types, (0, len(response))).unsqueeze(0)
    if hasattr(policy.model.model, "rope_deltas"):
        policy.model.model.rope_deltas = None  # the class keeps the last call's
    attention = torch.ones_like(input_ids)
    logits = policy.model(input_ids=input_ids, attention_mask=attention, use_cache=False, **inputs).logits[0]
    logits = logits[len(prompt.input_ids) - 1 : -1]
    bias = torch.zeros(logits.shape[1])
    for token in policy.adapter.banned_token_ids:
        bias[token] = -100.0
    chosen = torch.from_numpy(response.astype(np.int64))
    return ((logits + bias) / policy.temperature).log_softmax(-1)[torch.arange(len(response)), chosen]
