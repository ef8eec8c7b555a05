"""Runs inside vLLM's workers: loads a version of the policy's weights and proves that it covered the model.

vLLM mixes `WeightLoading` into its worker class (`worker_extension_cls`), so the methods are reached by
`collective_rpc`. `reload_weights` repacks weights for the device and is the same call on CPU and GPU; it only warns of
parameters that it did not receive, so what its loader reports is counted here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn


class WeightLoading:
    """Mixed into vLLM's worker: `self.model_runner` is the worker's own."""

    def load_policy_weights(self, weights: Mapping[str, torch.Tensor]) -> list[str]:
        """Loads all of `weights` (names as in the checkpoint) and returns engine parameters that none of them filled."""
        model = self.model_runner.get_model()
        expected = {name for name, _ in model.named_parameters()}
        loaded: set[str] = set()
        load = model.load_weights

        def load_and_count(iterator):
            names = load(iterator)
            loaded.update(names)
            return names

        model.load_weights = load_and_count
        try:
            self.model_runner.reload_weights(weights_iterator=iter(weights.items()))
        finally:
            del model.load_weights
        _renew_tied_heads(model)
        return sorted(expected - loaded)


def _renew_tied_heads(model: nn.Module) -> None:
    """Prepares output heads that share the input embeddings' matrix anew.

    A reload prepares the layers that it fills. Such a head it does not fill, and on a CPU what computes is a packed
    copy: it would go on with the weights that the engine was started with.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

    layers = [layer for layer in model.modules() if isinstance(layer, VocabParallelEmbedding)]
    embeddings = {id(layer.weight) for layer in layers if not isinstance(layer, ParallelLMHead)}
    for head in layers:
        if isinstance(head, ParallelLMHead) and id(head.weight) in embeddings:
            head.quant_method.process_weights_after_loading(head)
