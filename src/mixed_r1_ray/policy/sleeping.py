"""Takes a ZeRO-3 engine off its GPU and back, so that another process can have the memory meanwhile.

Not by DeepSpeed's own `offload_states`: it moves the float32 weights and AdamW's moments for its FusedAdam alone, and its
way with 16-bit weights fails where some are frozen: it looks for these in the buffer of the trained ones.
"""

from __future__ import annotations

from mixed_r1_ray.policy.adamw import MOMENTS
from mixed_r1_ray.policy.host_copy import HostCopy


def put_to_sleep(engine, host: HostCopy) -> None:
    """Moves what a rank keeps between updates from its device to `host`, and frees what it does not.

    Gradients are not kept: an update's first microbatch writes over them.
    """
    zero3 = engine.optimizer
    zero3.empty_partition_cache()
    shards = [(parameter.ds_tensor, parameter.requires_grad) for parameter in zero3.module.parameters()]
    trained = [zero3.lp_param_buffer, *(shard for shard, trains in shards if trains)]
    frozen = [shard for shard, trains in shards if not trains]
    buckets = [bucket.buffer for bucket in zero3.ipg_buckets.values() if bucket.buffer is not None]
    if zero3.offload_optimizer:  # gradients and AdamW's state lie on the host for good
        host.take_off(trained, frozen, buckets)
    else:
        state = [zero3.optimizer.state[shard][name] for shard in zero3.fp32_partitioned_groups_flat for name in MOMENTS]
        changing = [*trained, *zero3.fp32_partitioned_groups_flat, *state]
        host.take_off(changing, frozen, [*buckets, zero3.grad_partitions_flat_buffer])
