"""Planned activations against bytes counted at true shapes: every published model's layers on fake tensors.

Fake tensors have shapes and storages but no numbers, so a microbatch of an 8B model passes in seconds.
"""

from __future__ import annotations

import weakref

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mixed_r1_ray.config_load import load_config
from mixed_r1_ray.policy.group_attention import LANGUAGE, GroupAttention, register
from mixed_r1_ray.policy.recomputing import recompute_layers
from mixed_r1_ray.scale.architecture import read_architecture
from mixed_r1_ray.scale.memory import PackedRow, activation_bytes, kept_bytes, learner_row
from mixed_r1_ray.scale.published import PUBLISHED
from mixed_r1_ray.scale.workload import Workload

CONFIGURATIONS = ("internvl_2b", "internvl_8b", "qwen2_5_vl_3b", "qwen2_5_vl_7b")
BFLOAT16 = 2


class LiveBytes(TorchDispatchMode):
    """Follows the storages of all tensors that are made, those of `left_out` apart."""

    def __init__(self, left_out):
        super().__init__()
        self.live = self.most = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in left_out}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage) -> None:
        if storage._cdata in self._known:
            return
        self._known.add(storage._cdata)
        weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())
        self.live += storage.nbytes()
        self.most = max(self.most, self.live)

    def _forget(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.live -= size


def language_model(path: str):
    """The layers as a learner has them, on fake tensors, in bfloat16."""
    from transformers import AutoConfig, AutoModel

    register()
    config = AutoConfig.for_model(**PUBLISHED[path]).text_config
    config._attn_implementation = LANGUAGE
    model = AutoModel.from_config(config, dtype=torch.bfloat16).eval()
    for parameter in model.parameters():  # ZeRO-3 takes gradients away as they come
        parameter.register_post_accumulate_grad_hook(lambda one: setattr(one, "grad", None))
    return model


def counted(path: str, row: PackedRow, recomputed: bool) -> tuple[int, int]:
    """Bytes that are there between forward and backward pass, and the most until the end of the latter."""
    attention = GroupAttention.plan([row.prompt], [[row.length] * row.responses])
    assert attention.own.buckets and attention.prompts.buckets  # real numbers: they hold lengths
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = language_model(path)
        if recomputed:
            recompute_layers(model)
        embeddings = torch.empty(1, row.tokens, model.config.hidden_size, dtype=torch.bfloat16, requires_grad=True)
        axes = (3,) if "Qwen" in path else ()
        positions = torch.zeros(*axes, 1, row.tokens, dtype=torch.int64)
        with LiveBytes(model.parameters()) as bytes_:
            hidden = model(
                inputs_embeds=embeddings,
                attention_mask={"full_attention": attention},
                position_ids=positions,
                use_cache=False,
            ).last_hidden_state
            kept, bytes_.most = bytes_.live, 0
            hidden.backward(torch.empty_like(hidden))
            return kept, bytes_.most


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def planned(request) -> tuple[str, PackedRow]:
    config = load_config([f"conf={request.param}"])
    work = Workload.at_most(config, read_architecture(config.model.path))
    return config.model.path, learner_row(config, work)


@pytest.mark.parametrize("recomputed", [True, False])
def test_activations_at_true_shapes_are_within_a_tenth_of_the_plan(planned, recomputed):
    path, row = planned
    language = read_architecture(path).language
    assert row.tokens > 15_000
    kept, most = counted(path, row, recomputed)
    assert kept == pytest.approx(kept_bytes(language, row, BFLOAT16, recomputed), rel=0.1)
    assert most == pytest.approx(activation_bytes(language, row, BFLOAT16, recomputed), rel=0.1)
