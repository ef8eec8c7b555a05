"""What a learner must keep to go on exactly: fp32 weights and AdamW's moments, apart from how many ranks held them.

Rank r writes every num_ranks-th parameter, whole, so writing is shared and any number of ranks can read it back.

    folder/optimizer-00000-of-00002.safetensors   weight/NAME, exp_avg/NAME, exp_avg_sq/NAME (float32), step/NAME
           policy/                                an ordinary checkpoint: config, weights, processor
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mixed_r1_ray.errors import UserError

if TYPE_CHECKING:
    from mixed_r1_ray.policy.learner import PolicyLearner

MOMENTS = ("exp_avg", "exp_avg_sq")


def save_training_state(learner: PolicyLearner, folder: Path) -> None:
    """Writes this rank's share; all ranks must call."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state
    from safetensors.torch import save_file

    share = {}
    for number, (name, parameter) in enumerate(_trained(learner)):
        tensors = {"weight": safe_get_full_fp32_param(parameter)}
        tensors |= {moment: safe_get_full_optimizer_state(parameter, moment) for moment in MOMENTS}
        if number % learner.num_ranks == learner.rank:
            share |= {f"{kind}/{name}": tensor.detach().cpu().clone() for kind, tensor in tensors.items()}
    share["optimizer_steps"] = torch.tensor(learner.optimizer_steps())
    save_file(share, folder / f"optimizer-{learner.rank:05d}-of-{learner.num_ranks:05d}.safetensors")
    _save_policy(learner, folder / "policy")


def load_training_state(learner: PolicyLearner, folder: Path) -> None:
    """Takes over what `save_training_state` wrote. Raises UserError where the shards do not hold this model."""
    import deepspeed
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state
    from safetensors.torch import load_file

    tensors: dict[str, torch.Tensor] = {}
    for shard in sorted(folder.glob("optimizer-*-of-*.safetensors")):
        tensors |= load_file(shard)
    for name, parameter in _trained(learner):
        weight = tensors.get(f"weight/{name}")
        if weight is None or weight.numel() != parameter.ds_numel:
            raise UserError(f"checkpoint {folder}: holds no {name} of {parameter.ds_numel} numbers; another model's?")
        safe_set_full_fp32_param(parameter, weight)  # AdamW's copy; the model's own follows
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            parameter.data.copy_(weight.view_as(parameter))
        for moment in MOMENTS:
            safe_set_full_optimizer_state(parameter, tensors[f"{moment}/{name}"], moment)
    learner.set_optimizer_steps(int(tensors["optimizer_steps"]))


def _trained(learner: PolicyLearner) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, parameter) for name, parameter in learner.policy.model.named_parameters() if parameter.requires_grad]


def _save_policy(learner: PolicyLearner, folder: Path) -> None:
    from huggingface_hub import save_torch_state_dict

    weights = learner.gather_weights()
    if learner.rank == 0:
        folder.mkdir()
        save_torch_state_dict(weights, folder)
        learner.policy.model.config.save_pretrained(folder)
        learner.policy.model.generation_config.save_pretrained(folder)
        learner.adapter.processor.save_pretrained(folder)
