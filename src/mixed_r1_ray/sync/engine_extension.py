"""Runs inside vLLM's workers: loads a version of the policy's weights and proves that it covered the model.

vLLM mixes `WeightLoading` into its worker class (`worker_extension_cls`), so the methods are reached by
`collective_rpc`. `reload_weights` repacks weights for the device and is the same call on CPU and GPU; it only warns of
parameters that it did not receive, so what its loader reports is counted here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mixed_r1_ray.sync.broadcast import BroadcastGroup, Meeting

if TYPE_CHECKING:
    from torch import nn

    from mixed_r1_ray.sync.sources import WeightSource


class WeightLoading:
    """Mixed into vLLM's worker: `self.model_runner` is the worker's own."""

    def join_broadcast(self, meeting: Meeting, first_rank: int) -> None:
        """Enters the group in which learners send weights. first_rank: of this engine's workers."""
        self._broadcast_group = BroadcastGroup(meeting, first_rank + self.rank, self.device)

    def attention_kernels(self) -> tuple[str, str]:
        """What vLLM calls the attention backends of the language model and of the vision tower."""
        from vllm.model_executor.layers.attention.mm_encoder_attention import MMEncoderAttention

        language = {group.backend.get_name() for groups in self.model_runner.attn_groups for group in groups}
        layers = self.model_runner.get_model().modules()
        vision = {layer.attn_backend.name for layer in layers if isinstance(layer, MMEncoderAttention)}
        return "+".join(sorted(language)), "+".join(sorted(vision))

    def load_policy_weights(self, parts: Mapping[str, WeightSource]) -> list[str]:
        """Loads the parts of a version by name and returns engine parameters that it should have filled and did not.

        Parts that came before and are not among `parts` stay as they are. All together must fill the model, a part
        that comes again what it filled before, and each part whole layers: a reload makes a layer anew, and what its
        part does not bring of it is left as the memory was.
        """
        filled: dict[str, set[str]] = getattr(self, "_filled_by_part", {})
        loaded = {part: self._reload(source) for part, source in parts.items()}
        of_model = {name for name, _ in self.model_runner.get_model().named_parameters()}
        missing = of_model - set().union(*filled.values(), *loaded.values())
        for part, names in loaded.items():
            layers = {_layer(name) for name in names}
            missing |= filled.get(part, set()) - names
            missing |= {name for name in of_model - names if _layer(name) in layers}
        if not missing:
            self._filled_by_part = filled | loaded
        return sorted(missing)

    def _reload(self, source: WeightSource) -> set[str]:
        """Loads from `source`; returns the engine's names of what that filled."""
        model = self.model_runner.get_model()
        loaded: set[str] = set()
        load = model.load_weights

        def load_and_count(iterator):
            names = load(iterator)
            loaded.update(names)
            return names

        model.load_weights = load_and_count
        try:
            self.model_runner.reload_weights(weights_iterator=source.tensors(getattr(self, "_broadcast_group", None)))
        finally:
            del model.load_weights
        _renew_tied_heads(model)
        return loaded


def _layer(parameter: str) -> str:
    return parameter.rpartition(".")[0]


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
