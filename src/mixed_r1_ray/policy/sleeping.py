"""Takes a ZeRO-3 engine off its GPU and back, so that another process can have the memory meanwhile.

DeepSpeed's own `offload_states` moves gradients here. The float32 weights and AdamW's moments it moves for its FusedAdam
alone, and its way with 16-bit weights fails where some are frozen: it looks for these in the buffer of the trained ones.
"""

from __future__ import annotations

import torch

from mixed_r1_ray.policy.device import free_cached_memory

HOST = torch.device("cpu")


def put_to_sleep(engine, device: torch.device) -> None:
    """Moves all that a rank keeps between updates from `device` to host memory."""
    from deepspeed.runtime.zero.offload_config import OffloadStateTypeEnum as State

    kept = {State.lp_grads, State.contiguous_grad_buffer}
    engine.offload_states(include=kept, pin_memory=device.type == "cuda")
    _move_weights(engine.optimizer, HOST)
    _move_optimizer(engine.optimizer, HOST)
    free_cached_memory()


def wake_up(engine, device: torch.device) -> None:
    """Moves it back to `device`."""
    engine.reload_states()
    _move_weights(engine.optimizer, device)
    _move_optimizer(engine.optimizer, device)


def _move_weights(zero3, device: torch.device) -> None:
    """This rank's shards: those of trained parameters are views of one buffer, frozen ones stand alone."""
    from deepspeed.runtime.zero.utils import get_mapping_to_flat_buffer

    buffer = zero3.lp_param_buffer
    buffer.data = buffer.data.to(device)
    for shard, offset, length in get_mapping_to_flat_buffer(zero3._get_parameter_partitions()):
        shard.data = buffer.narrow(0, offset, length)
    zero3.fp16_partitioned_groups_flat.clear()
    zero3._set_fp16_partitioned_groups_flat()
    for parameter in zero3.module.parameters():
        if not parameter.requires_grad:
            parameter.ds_tensor.data = parameter.ds_tensor.data.to(device)


def _move_optimizer(zero3, device: torch.device) -> None:
    """Float32 weights and AdamW's moments; with `learner.offload` they lie on the host for good."""
    if zero3.offload_optimizer:
        return
    for shard in zero3.fp32_partitioned_groups_flat:
        shard.data = shard.data.to(device)
        state = zero3.optimizer.state[shard]
        for name in ("exp_avg", "exp_avg_sq"):
            state[name] = state[name].to(device)
