"""Peak rates of known accelerators and links, the fractions of them that estimates count on, and what a host takes.

Peaks are the makers' data sheets (SXM boards; dense bf16, no sparsity; one direction of a link). A fraction is a choice
of this project until a run on that hardware replaces it; docs/scale.md says which estimate each one enters.
"""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Device:
    """An accelerator: bytes, bytes/s, operations/s. Links are per device and direction."""

    name: str
    memory: float
    memory_rate: float
    flops: float
    nvlink_rate: float  # to devices of the same node
    network_rate: float  # to other nodes, for collectives
    host_rate: float  # to and from host memory


@dataclass(frozen=True)
class Efficiency:
    """Fraction of a peak that is reached. All are choices; see the module's docstring."""

    decode_bandwidth: float = 0.7  # weights and KV cache streamed in a decode step
    prefill_flops: float = 0.5
    learner_flops: float = 0.4  # MFU
    reference_flops: float = 0.5
    collective: float = 0.7  # all-gather and reduce-scatter
    host_copy: float = 0.7
    object_transfer: float = 0.5  # Ray's object manager over TCP


@dataclass(frozen=True)
class HostRates:
    """What no accelerator's peak explains. `measured`: as docs/scale.md says; else a choice."""

    decode_step_s: float = 0.002  # choice: scheduling, sampling and launches of one engine step
    microbatch_s: float = 0.01  # choice: packing and launches
    reward_sample_s: float = 0.0006  # measured: BMAS, the slowest built-in but math (docs/rewards.md), one core
    group_driver_s: float = 0.0004  # measured: the driver's CPU for a group's references and calls
    patch_s: float = 3.0e-6  # measured: decoding and preparing a picture, by patch of the vision tower, one core
    object_put_rate: float = 7.7e9  # measured: bytes/s into the object store, one process
    memory_rate: float = 200e9  # choice: bytes/s of a node's memory
    node_network_rate: float = 12.5e9  # choice: 100 Gb/s of a node, which the object store's transfers share


DEVICES: dict[str, Device] = {
    # H100 SXM5 data sheet: 80 GB, 3.35 TB/s, 989 TFLOPS, NVLink 900 GB/s both ways; NDR 400 Gb/s; PCIe 5.0 x16.
    "H100": Device("H100", 80 * GIB, 3.35e12, 989e12, 450e9, 50e9, 64e9),
    # H200 SXM data sheet: 141 GB, 4.8 TB/s, otherwise as H100.
    "H200": Device("H200", 140 * GIB, 4.8e12, 989e12, 450e9, 50e9, 64e9),
    # A100 80GB SXM4 data sheet: 2,039 GB/s, 312 TFLOPS, NVLink 600 GB/s both ways; HDR 200 Gb/s; PCIe 4.0 x16.
    "A100": Device("A100", 80 * GIB, 2.039e12, 312e12, 300e9, 25e9, 32e9),
}


def engine_sequences(name: str, memory: float) -> int:
    """vLLM's own limit to what an engine decodes at once (0.32: EngineArgs.get_batch_defaults, for vllm.LLM).

    name: a key of DEVICES. memory: its bytes; 0 for an engine on a CPU.
    """
    return 1024 if memory >= 160 * GIB or (memory >= 70 * GIB and name != "A100") else 256
