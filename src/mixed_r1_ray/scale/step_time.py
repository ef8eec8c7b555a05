"""Seconds of one step by phase, from peak rates: the model that docs/scale.md explains."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

from ..cluster_plan import has_reference_worker
from ..config import Config
from ..sync.ways import chosen_way
from .architecture import Architecture
from .hardware import Device, Efficiency, HostRates, engine_sequences
from .memory import ADAM_BYTES, BYTES, GRADIENT_BYTES, PackedRow
from .operations import decode_bytes, decode_flops, forward_flops, vision_flops
from .workload import Workload


@dataclass(frozen=True)
class Layout:
    """What of a placement the times depend on."""

    learner_nodes: int = 1
    engine_nodes_elsewhere: int = 0  # nodes with engines that are not the first learner's
    cache_bytes: float = 0.0  # KV cache of one engine, all its devices together


@dataclass(frozen=True)
class Phase:
    """`busy`: seconds of work by what it is made of. `seconds`: what of it the step waits for."""

    name: str
    seconds: float
    bound: str
    busy: dict[str, float]


@dataclass(frozen=True)
class StepModel:
    """A run's configuration on stated hardware."""

    config: Config
    architecture: Architecture
    device: Device
    layout: Layout = Layout()
    efficiency: Efficiency = Efficiency()
    host: HostRates = HostRates()

    @property
    def work(self) -> Workload:
        return Workload.expected(self.config, self.architecture)

    @property
    def number(self) -> int:
        """Bytes of a weight."""
        return BYTES[self.config.model.dtype]

    def phases(self) -> list[Phase]:
        """In the order of a step. What runs while engines generate costs only what outlasts them."""
        generate, learn, sync = self.generate(), self.learn(), self.sync()
        behind = [self._behind(part, generate.seconds) for part in (self.driver(), self.reward())]
        same_gpus = self.config.cluster.share_gpus  # then nothing overlaps on them
        behind.append(self._behind(self.reference(), 0.0 if same_gpus else generate.seconds))
        if self.config.algo.max_staleness > 0 and not same_gpus:
            generate = self._behind(generate, learn.seconds)
        turns = [self.turns()] if same_gpus else []
        step = sum(phase.seconds for phase in (generate, learn, sync, *turns))
        return [self._behind(self.data(), step), generate, *behind, learn, sync, *turns]

    def seconds(self) -> float:
        return sum(phase.seconds for phase in self.phases())

    def batch(self) -> float:
        """Sequences that an engine decodes at once."""
        rollout, work = self.config.rollout, self.work
        mine = work.samples / rollout.num_workers
        cached = work.prompt_tokens / work.group_size + work.response_tokens  # the group shares its prompt
        room = self.layout.cache_bytes / (cached * self.architecture.language.kv_bytes(self.number))
        own = engine_sequences(self.device.name, self.device.memory if rollout.gpus_per_worker else 0)
        return max(1.0, min(mine, rollout.max_concurrent_sequences or own, room or mine))

    def decode_step(self, batch: float) -> dict[str, float]:
        """Seconds of one decode step by limit; the larger of the first two counts, and the overhead."""
        language, devices = self.architecture.language, max(1, self.config.rollout.gpus_per_worker)
        context = self.work.prompt_tokens + self.work.response_tokens / 2
        moved = decode_bytes(language, batch, context, self.number)
        computed = batch * decode_flops(language, context)
        return {
            "memory bandwidth": moved / (devices * self.device.memory_rate * self.efficiency.decode_bandwidth),
            "arithmetic": computed / (devices * self.device.flops * self.efficiency.prefill_flops),
            "step overhead": self.host.decode_step_s,
        }

    def generate(self) -> Phase:
        """Prefill of every prompt once; full batches; then the longest response, while the batch runs empty."""
        work, rollout = self.work, self.config.rollout
        mine, batch, longest = work.samples / rollout.num_workers, self.batch(), work.longest_response
        drained = batch * work.response_tokens / longest  # mean batch while the last `longest` steps run
        full = self.decode_step(batch)
        full_steps = (mine - batch) * work.response_tokens / batch
        busy = {
            "prefill": self._prefill() * work.prompts / rollout.num_workers,
            "full batches": full_steps * _step_seconds(full),
            "tail": longest * _step_seconds(self.decode_step(drained)),
        }
        return Phase("generate", sum(busy.values()), max(full, key=full.get), busy)

    def _prefill(self) -> float:
        """Seconds of one prompt: the tower and the language model over it."""
        row = PackedRow(self.work.prompt_tokens, 0, 0)
        flops = forward_flops(self.architecture.language, row)
        flops += vision_flops(self.architecture.vision, self.work.picture_tokens)
        devices = max(1, self.config.rollout.gpus_per_worker)
        return flops / (devices * self.device.flops * self.efficiency.prefill_flops)

    def group_flops(self) -> tuple[float, float]:
        """(language, vision) forward operations of one packed group."""
        work = self.work
        row = PackedRow(work.prompt_tokens, work.group_size, work.response_tokens)
        vision = vision_flops(self.architecture.vision, work.picture_tokens)
        return forward_flops(self.architecture.language, row), vision

    def reference(self) -> Phase:
        if not has_reference_worker(self.config):
            return Phase("reference", 0.0, "none", {})
        rate = self.config.reference.num_workers * self.device.flops * self.efficiency.reference_flops
        seconds = self.work.prompts * sum(self.group_flops()) / rate
        return Phase("reference", seconds, "arithmetic", {"arithmetic": seconds})

    def learn(self) -> Phase:
        """All passes over the packed groups; ZeRO-3's gathers and scatters overlap with their arithmetic."""
        learner, algo, work, ranks = self.config.learner, self.config.algo, self.work, self.config.learner.num_workers
        language, vision = self.group_flops()
        passes, looks, forwards = self._passes()
        flops = work.prompts * (passes * language + looks * vision)
        per_minibatch = work.prompts * work.group_tokens / algo.num_minibatches
        microbatches = algo.num_minibatches * ceil(per_minibatch / (learner.microbatch_tokens * ranks))
        trained = self.architecture.trained(learner.freeze, learner.lora_rank)
        gathered, scattered = self.architecture.parameters * (forwards + algo.num_epochs), trained * algo.num_epochs
        moved = (self.number * gathered + GRADIENT_BYTES * scattered) * (ranks - 1) / ranks
        busy = {
            "arithmetic": flops / (ranks * self.device.flops * self.efficiency.learner_flops),
            "collectives": microbatches * moved / self._link(),
            "optimizer": self._update(trained / ranks, microbatches),
            "microbatch overhead": microbatches * forwards * self.host.microbatch_s,
        }
        bound = max(("arithmetic", "collectives"), key=busy.get)
        return Phase("learn", busy[bound] + busy["optimizer"] + busy["microbatch overhead"], bound, busy)

    def _passes(self) -> tuple[int, int, int]:
        """Passes over language model and tower, in forwards, and how many of them are forwards that gather weights.

        A backward is two forwards, or one where the weights are frozen under adapters; with recomputation one more.
        Each epoch has both; under LoRA also a forward without adapters, the reference; several updates on a batch want
        the old policy's log-probabilities, a forward before them all.
        """
        learner, algo = self.config.learner, self.config.algo
        backward = (1 if learner.lora_rank else 2) + learner.gradient_checkpointing
        several = algo.num_minibatches * algo.num_epochs > 1 and algo.old_logprobs == "trainer"
        forwards = algo.num_epochs * (2 if learner.lora_rank and algo.beta > 0 else 1) + several
        tower = algo.num_epochs * backward if learner.freeze == "none" and not learner.lora_rank else 0
        return forwards + algo.num_epochs * backward, forwards + tower, forwards

    def _update(self, numbers: float, microbatches: int) -> float:
        """Seconds of AdamW over one rank's parameters: gradient read, weight written, its state read and written.

        On the host the node's ranks share its memory, and every microbatch's gradients go there.
        """
        epochs, updates = self.config.algo.num_epochs, self.config.algo.num_epochs * self.config.algo.num_minibatches
        moved = updates * (self.number + GRADIENT_BYTES + 6 * 4) * numbers
        if self.config.learner.offload == "none":
            return moved / (self.device.memory_rate * self.efficiency.decode_bandwidth)
        together = ceil(self.config.learner.num_workers / self.layout.learner_nodes)
        crossing = (epochs * microbatches * GRADIENT_BYTES + updates * self.number) * numbers
        return together * moved / self.host.memory_rate + crossing / (self.device.host_rate * self.efficiency.host_copy)

    def sync(self) -> Phase:
        """What training changes, the way that `rollout.weight_transfer` says."""
        size = self.number * self.architecture.changing(self.config.learner.freeze)
        ranks, devices = self.config.learner.num_workers, max(1, self.config.rollout.gpus_per_worker)
        gather = {"gather": size * (ranks - 1) / ranks / self._link()}
        copy = 2 * size / (self.device.memory_rate * self.efficiency.decode_bandwidth)  # read and written
        on_devices = {"into buckets": copy, "into the engine": copy / devices}
        match chosen_way(self.config):
            case "broadcast":
                return self._broadcast(size, gather, on_devices)
            case "ipc":
                busy = gather | on_devices
            case _:
                busy = gather | self._through_the_store(size)
        return Phase("sync", sum(busy.values()), max(busy, key=busy.get), busy)

    def _broadcast(self, size: float, gather: dict[str, float], on_devices: dict[str, float]) -> Phase:
        """One bucket is sent while the next is gathered; a chain of devices, so its length does not count."""
        together = self.layout.learner_nodes == 1 and self.layout.engine_nodes_elsewhere == 0
        rate = self.device.nvlink_rate if together else self.device.network_rate
        busy = gather | {"broadcast": size / (rate * self.efficiency.collective)} | on_devices
        bound = max(("gather", "broadcast"), key=busy.get)
        return Phase("sync", busy[bound] + sum(on_devices.values()), bound, busy)

    def _through_the_store(self, size: float) -> dict[str, float]:
        """Gathered, to host memory, into the object store, to the other nodes (a tree), onto the devices: one by one."""
        to_device = size / (self.device.host_rate * self.efficiency.host_copy)
        transfer = size / (self.host.node_network_rate * self.efficiency.object_transfer)
        return {
            "to the host": to_device,
            "into the object store": size / self.host.object_put_rate,
            "to other nodes": transfer * ceil(log2(self.layout.engine_nodes_elsewhere + 1)),
            "to the devices": to_device / max(1, self.config.rollout.gpus_per_worker),
        }

    def turns(self) -> Phase:
        """What roles on shared GPUs keep, to the host and back, once a step each: nobody works meanwhile.

        A reference only comes back, since its weights never change, and so do the learner's frozen ones.
        """
        config, architecture = self.config, self.architecture
        weights = self.number * architecture.parameters
        moved = {"rollout": 2 * weights, "learner": self._learner_moves()}
        if has_reference_worker(config):
            moved["reference"] = weights
        sharers = {role: size for role, size in moved.items() if getattr(config, role).gpus_per_worker}
        rate = self.device.host_rate * self.efficiency.host_copy
        busy = {role: size / rate for role, size in sharers.items()} if len(sharers) > 1 else {}
        return Phase("turns", sum(busy.values()), "host link", busy)

    def _learner_moves(self) -> float:
        """Bytes of one rank, both ways."""
        learner, architecture = self.config.learner, self.architecture
        trained = architecture.trained(learner.freeze, learner.lora_rank)
        held = architecture.parameters + architecture.language.lora_parameters(learner.lora_rank)
        state = 0 if learner.offload == "optimizer" else ADAM_BYTES * trained
        return (self.number * (held + trained) + 2 * state) / learner.num_workers

    def reward(self) -> Phase:
        seconds = self.work.samples * self.host.reward_sample_s / self.config.reward.num_workers
        return Phase("reward", seconds, "reward workers", {"scoring": seconds})

    def data(self) -> Phase:
        """Prepared one batch ahead."""
        patches = self.work.prompts * self.work.picture_tokens * self.architecture.vision.patches_per_token
        seconds = patches * self.host.patch_s / self.config.data.num_workers
        return Phase("data", seconds, "data workers", {"pictures": seconds})

    def driver(self) -> Phase:
        seconds = self.work.prompts * self.host.group_driver_s
        return Phase("driver", seconds, "driver", {"groups": seconds})

    def _link(self) -> float:
        rate = self.device.nvlink_rate if self.layout.learner_nodes == 1 else self.device.network_rate
        return rate * self.efficiency.collective

    @staticmethod
    def _behind(phase: Phase, hidden: float) -> Phase:
        return Phase(phase.name, max(0.0, phase.seconds - hidden), phase.bound, phase.busy)


def _step_seconds(limits: dict[str, float]) -> float:
    return max(limits["memory bandwidth"], limits["arithmetic"]) + limits["step overhead"]
