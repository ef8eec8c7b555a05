"""The policy under training: one DeepSpeed ZeRO-3 rank."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

from mixed_r1_ray.algo.aggregation import BatchSize
from mixed_r1_ray.algo.learning_rate import rate_of_peak
from mixed_r1_ray.algo.objective import Objective
from mixed_r1_ray.config import Config, LearnerConfig
from mixed_r1_ray.guard import Guard
from mixed_r1_ray.policy.adamw import fresh_state, make_adamw, step_count
from mixed_r1_ray.policy.buffers import restore_buffers
from mixed_r1_ray.policy.device import to_device, worker_device
from mixed_r1_ray.policy.finite import SKIPPED, SkippedUpdates, check_policy, check_update, means_of
from mixed_r1_ray.policy.host_copy import HostCopy
from mixed_r1_ray.policy.loading import load_policy
from mixed_r1_ray.policy.lora import add_lora, adapters_off
from mixed_r1_ray.policy.microbatches import Microbatch, plan_microbatches
from mixed_r1_ray.policy.minibatches import cut_minibatches
from mixed_r1_ray.policy.outgoing import OutgoingWeights
from mixed_r1_ray.policy.packing import PackedGroups
from mixed_r1_ray.policy.reading import read_logprobs
from mixed_r1_ray.policy.recomputing import recompute_layers
from mixed_r1_ray.policy.sleeping import put_to_sleep
from mixed_r1_ray.policy.statistics import Mismatch, UpdateStatistics
from mixed_r1_ray.policy.tokens import SampleKey, TokenTensors, fetch_contents
from mixed_r1_ray.schedules import learning_rate_steps
from mixed_r1_ray.types import GroupInfo, PromptInputs, Reading, TrainBatch

REDUCE_BUCKET = 5 * 10**8  # most gradients that are reduced at once, in numbers: DeepSpeed's default


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """How the ranks find each other. `address` is a path on one machine, tcp://host:port across several."""

    address: str
    rank: int
    num_ranks: int


class PolicyLearner:
    """Holds a ZeRO-3 shard of the policy and its AdamW state, and applies global batches to it."""

    def __init__(self, config: Config, rendezvous: Rendezvous):
        self.config = config
        self.rank, self.num_ranks = rendezvous.rank, rendezvous.num_ranks
        torch.set_num_threads(num_threads(config.learner))
        torch.manual_seed(config.run.seed)
        self.device = worker_device("learner", config.learner.gpus_per_worker)
        _join(rendezvous, self.device, config.learner.start_timeout_s)
        self.engine = _zero3_engine(config, self.device)
        self.policy = self.engine.module
        self.adapter = self.policy.adapter
        self.objective = Objective(config.algo)
        self.guard = Guard.from_config(config)
        self.skipped = SkippedUpdates(config.learner.max_skipped_updates)
        self._create_optimizer_state()
        self.host = HostCopy(self.device)
        self.outgoing = OutgoingWeights(self.policy.model, self.rank, self.device)

    def update(self, batch: TrainBatch) -> dict[str, float]:
        """The optimizer steps of one global batch. Returns metrics, means over the steps, the same on every rank.

        Raises NumericsError, before anything is changed, where engine and trainer disagree beyond the threshold, and
        UserError where the new weights are not finite or their answers are not (policy/finite.py).
        """
        algo = self.config.algo
        minibatches = cut_minibatches(batch, algo.num_minibatches, algo.num_epochs, self.config.run.seed)
        recomputed = algo.old_logprobs == "trainer" and len(minibatches) > 1
        old, mismatch = self._old_logprobs(batch) if recomputed else ({}, None)
        updates = []
        for minibatch in minibatches:
            statistics, measured = self._accumulate(minibatch, old)
            if not updates:
                mismatch = (mismatch or measured).reduce()
                self.guard.check_mismatch(batch.step, mismatch.spread())
            metrics = statistics.reduce().metrics(minibatch)
            if not updates and batch.step == 1:
                self.guard.check_initial_kl(metrics.get("kl/reference", 0.0))
            updates.append(metrics | self._step(batch.step))
        check_policy(self, batch.step)
        return means_of(updates) | mismatch.metrics()

    def _old_logprobs(self, batch: TrainBatch) -> tuple[dict[SampleKey, torch.Tensor], Mismatch]:
        """Log-probabilities of the whole batch under the weights as they are, and how far the engine's are from them.

        All ranks get all of them: the minibatch of a later epoch may bring a group to another rank.
        """
        own, mismatch = {}, Mismatch(self.guard.likely)
        for microbatch, tokens in self._planned(batch):
            with torch.no_grad():
                logprobs, _ = self.engine(self.policy.pack(tokens.prompts, tokens.responses))
            if not microbatch.filler:
                mismatch.add(tokens, logprobs, batch.step - 1)
                own |= tokens.by_sample(logprobs)
        shares: list = [None] * self.num_ranks
        dist.all_gather_object(shares, own)
        return {sample: logprobs for share in shares for sample, logprobs in share.items()}, mismatch

    def _accumulate(
        self, batch: TrainBatch, old: Mapping[SampleKey, torch.Tensor]
    ) -> tuple[UpdateStatistics, Mismatch]:
        """Makes the gradient of the global loss, each rank its part of it."""
        statistics, mismatch = UpdateStatistics(), Mismatch(self.guard.likely)
        size = BatchSize(batch.num_samples, batch.num_tokens, self.config.rollout.max_new_tokens)
        planned = self._planned(batch)
        for number, (microbatch, tokens) in enumerate(planned):
            self.engine.set_gradient_accumulation_boundary(number == len(planned) - 1)
            packed = self.policy.pack(tokens.prompts, tokens.responses)
            tokens = self._with_reference(tokens, packed)
            logprobs, entropy = self.engine(packed)
            old_logprobs = self._taken_as_old(tokens, logprobs.detach(), old)
            terms = self.objective(logprobs, old_logprobs, entropy, tokens, size)
            live = 0.0 if microbatch.filler else 1.0
            # DeepSpeed averages gradients over ranks; the weights already divide by the global batch.
            self.engine.backward(terms.total * self.num_ranks * live)
            if not microbatch.filler:
                statistics.add(logprobs.detach(), old_logprobs, entropy.detach(), terms)
                mismatch.add(tokens, logprobs.detach(), batch.step - 1)
        return statistics, mismatch

    def _taken_as_old(
        self, tokens: TokenTensors, logprobs: torch.Tensor, old: Mapping[SampleKey, torch.Tensor]
    ) -> torch.Tensor:
        """The policy that ratios are measured against, (N,)."""
        if self.config.algo.old_logprobs == "rollout":
            return tokens.rollout_logprobs
        if not old:  # one update a batch: the old policy is this one, and every ratio is 1
            return logprobs
        return to_device(torch.cat([old[sample] for sample in tokens.samples]), self.device)

    def _planned(self, batch: TrainBatch) -> list[tuple[Microbatch, TokenTensors]]:
        """This rank's microbatches with their tokens, on its device."""
        plan = plan_microbatches(batch, self.num_ranks, self.config.learner.microbatch_tokens)[self.rank]
        contents = fetch_contents(batch, plan)
        for prompt_id, content in contents.items():
            self.guard.check_staleness(batch.step, prompt_id, GroupInfo.of(content.group).oldest_version)
        tokens = [to_device(TokenTensors.of(microbatch, batch, contents), self.device) for microbatch in plan]
        return list(zip(plan, tokens, strict=True))

    def _step(self, step: int) -> dict[str, float]:
        """Applies the gradient; where it is not finite, DeepSpeed leaves all as it was."""
        self._set_learning_rate(self.optimizer_steps() + 1)
        self.engine.step()
        skipped = not self.engine.was_step_applied()
        self.skipped.note(step, skipped)
        if not skipped:
            check_update(self, step)
        return {
            "grad_norm": float(self.engine.get_global_grad_norm()),
            "learning_rate": self.engine.optimizer.param_groups[0]["lr"],
            SKIPPED: int(skipped),
        }

    def _with_reference(self, tokens: TokenTensors, packed: PackedGroups) -> TokenTensors:
        """Under LoRA the reference is this model without its adapters: no other actor holds one."""
        if self.config.learner.lora_rank == 0 or self.config.algo.beta == 0:
            return tokens
        with torch.no_grad(), adapters_off(self.policy.model):
            reference_logprobs, _ = self.engine(packed)
        return replace(tokens, reference_logprobs=reference_logprobs)

    def logprobs(
        self, prompts: Sequence[PromptInputs], responses: Sequence[Sequence[np.ndarray]], reading: Reading
    ) -> list[np.ndarray]:
        """Log-probabilities under the current weights, of each prompt's responses one behind the other.

        All ranks must call.
        """
        with torch.no_grad():
            return read_logprobs(self.engine, self.policy, prompts, responses, reading)

    def sleep(self) -> None:
        """Moves parameters and AdamW's state to host memory, drops gradients, and leaves the GPU to others."""
        put_to_sleep(self.engine, self.host)

    def wake(self) -> None:
        """Moves them back."""
        self.host.bring_back()

    def optimizer_steps(self) -> int:
        """Updates that AdamW has counted, for its bias correction."""
        return int(next(iter(self.engine.optimizer.optimizer.state.values()))["step"])

    def set_optimizer_steps(self, steps: int) -> None:
        for shard, state in self.engine.optimizer.optimizer.state.items():
            state["step"] = step_count(shard, steps)

    def _create_optimizer_state(self) -> None:
        """AdamW makes its state at its first step; a checkpoint is loaded before that."""
        zero3 = self.engine.optimizer
        for shard in zero3.fp32_partitioned_groups_flat:
            zero3.optimizer.state[shard] = fresh_state(shard)

    def _set_learning_rate(self, update: int) -> None:
        """That of the optimizer step with this number, from 1."""
        learner, steps = self.config.learner, learning_rate_steps(self.config)
        part = rate_of_peak(update, learner.lr_scheduler, learner.warmup_steps, steps, learner.min_lr_ratio)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = learner.learning_rate * part


def num_threads(learner: LearnerConfig) -> int:
    """Threads of a rank: `threads`, else one for each whole CPU that it reserves."""
    return learner.threads or max(1, int(learner.cpus_per_worker))


def _join(rendezvous: Rendezvous, device: torch.device, timeout_s: float) -> None:
    """Joins the ranks' process group; DeepSpeed finds it there."""
    os.environ.update(
        RANK=str(rendezvous.rank),
        WORLD_SIZE=str(rendezvous.num_ranks),
        LOCAL_RANK="0",  # of the GPUs that it sees
        LOCAL_SIZE="1",
        DS_ACCELERATOR=device.type,  # read when DeepSpeed is imported; left alone it takes any GPU that it sees
    )
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=rendezvous.address,
        rank=rendezvous.rank,
        world_size=rendezvous.num_ranks,
        timeout=timedelta(seconds=timeout_s),
    )


def _zero3_engine(config: Config, device: torch.device):
    """The policy as a DeepSpeed ZeRO-3 engine; weights are partitioned while they load."""
    import deepspeed
    from transformers.integrations import HfDeepSpeedConfig

    settings = _deepspeed_settings(config)
    # An all-reduce for inference, which on a CPU would be compiled at the first start: it would ask for a compiler, and
    # a start that is killed meanwhile leaves a lock behind for which all later ones would wait.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend=dist.get_backend(), dist_init_required=False)
    buffers_in_float32 = {"data_types": settings["data_types"] | {"keep_in_fp32_modules": ["*"]}}
    zero3_for_loading = HfDeepSpeedConfig(settings | buffers_in_float32)  # from_pretrained consults it while it lives
    policy = load_policy(config.model, config.rollout.temperature, config.learner.freeze)
    del zero3_for_loading
    restore_buffers(policy.model, getattr(torch, config.model.dtype))
    if config.learner.lora_rank:
        add_lora(policy.model, config.learner.lora_rank, config.learner.lora_alpha, config.run.seed)
    policy.entropy_gradient = config.algo.entropy_coef > 0
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    # DeepSpeed would take its whole bucket for a few adapters, too. These are not partitioned yet.
    numbers = sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in trained)
    settings["zero_optimization"]["reduce_bucket_size"] = min(REDUCE_BUCKET, numbers)
    engine, *_ = deepspeed.initialize(
        model=policy, optimizer=make_adamw(trained, config.learner), config=settings, dist_init_required=False
    )
    for buffer in policy.buffers():
        buffer.data = buffer.data.to(device)  # ZeRO-3 places parameters alone
    engine.eval()  # no dropout: the distribution that is trained is the one that was sampled from
    if config.learner.gradient_checkpointing:
        recompute_layers(policy.model)
    return engine


def _deepspeed_settings(config: Config) -> dict:
    pinned = {"device": "cpu", "pin_memory": config.learner.gpus_per_worker > 0}
    offload = {"offload_optimizer": pinned} if config.learner.offload == "optimizer" else {}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,  # boundaries are set by hand: the number of microbatches varies
        "gradient_clipping": config.learner.max_grad_norm,
        "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0} | offload,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": config.model.dtype == "bfloat16"},
        "data_types": {"grad_accum_dtype": "fp32", "keep_in_fp32_modules": []},  # buffers stay as they are restored
        "communication_data_type": "fp32",
        "steps_per_print": 10**9,
    }
