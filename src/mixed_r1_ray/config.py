"""The schema of a run. One dataclass a section; the line above a field is its documentation (`help=true` prints it)."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ModelConfig:
    #: Checkpoint folder or hub name; `tiny:internvl` and `tiny:qwen2_5_vl` are built and warm-started on the spot.
    path: str = "tiny:internvl"
    #: Number format of weights and activations: float32, bfloat16.
    dtype: str = "float32"
    #: Longest prompt plus response, in tokens.
    max_length: int = 512
    #: Least and most pixels of a picture (Qwen2.5-VL); null keeps the checkpoint's own.
    min_pixels: int | None = None
    max_pixels: int | None = None
    #: Most tiles of a picture (InternVL); null keeps the checkpoint's own.
    max_tiles: int | None = None


@dataclass
class TinyConfig:
    #: Supervised steps of a tiny model's warm start.
    warm_start_steps: int = 600
    #: Seed of its initial weights and of its data.
    seed: int = 0
    #: Training and held-out prompts a reward type that the generator makes.
    train_per_type: int = 1024
    eval_per_type: int = 400
    #: Where built models and data are kept, by the hash of what made them.
    cache_dir: str = "runs/.cache"


@dataclass
class DataConfig:
    #: Parquet file, folder of them, or `synthetic` for the quickstart mixture.
    train: str = "synthetic"
    #: Held-out data, likewise; null evaluates nothing.
    eval: str | None = "synthetic"
    #: Prompt text; `{question}` stands for the record's question.
    template: str = "{question}"
    #: System message, if any.
    system: str | None = None
    #: Run stops when more than this fraction of the rows is unusable.
    max_bad_fraction: float = 0.05
    #: Processes that decode pictures and prepare model inputs.
    num_workers: int = 1
    #: Logical CPUs of each.
    cpus_per_worker: float = 0.2


@dataclass
class RolloutConfig:
    #: Number of vLLM engines.
    num_workers: int = 1
    #: GPUs (tensor-parallel ranks) and logical CPUs of each engine.
    gpus_per_worker: int = 0
    cpus_per_worker: float = 0.5
    #: Prompts a step.
    prompts_per_step: int = 32
    #: G, responses a prompt.
    group_size: int = 8
    #: Sampling temperature; the trainer divides its logits by the same.
    temperature: float = 1.0
    #: Longest response, in tokens.
    max_new_tokens: int = 64
    #: Memory for the KV cache: GiB on a CPU, fraction of the device on a GPU.
    kv_cache_gib: float = 0.25
    gpu_memory_fraction: float = 0.6
    #: Threads of an engine on a CPU.
    threads: int = 1
    #: Most sequences an engine decodes at once.
    max_concurrent_sequences: int = 256
    #: Seconds for the engine to start, and for one batch.
    start_timeout_s: float = 600.0
    timeout_s: float = 1800.0


@dataclass
class RewardConfig:
    #: Reward worker processes, and logical CPUs of each.
    num_workers: int = 1
    cpus_per_worker: float = 0.1
    #: total = task_weight * task + format_weight * format.
    task_weight: float = 1.0
    format_weight: float = 0.5
    #: Chart comparison: relaxed, exact, edit_distance.
    chart_mode: str = "relaxed"
    #: IoU shape: continuous, threshold, dynamic; and the threshold.
    iou_mode: str = "continuous"
    iou_threshold: float = 0.5
    #: BMAS combination: mean, f1.
    bmas_mode: str = "mean"
    #: Seconds for one group.
    timeout_s: float = 60.0
    #: Run stops when more than this fraction of a step's samples could not be scored.
    max_unscored_fraction: float = 0.1


@dataclass
class LearnerConfig:
    #: DeepSpeed ZeRO-3 ranks.
    num_workers: int = 1
    gpus_per_worker: int = 0
    cpus_per_worker: float = 0.4
    #: Threads of a rank on a CPU.
    threads: int = 1
    #: Peak learning rate of AdamW, reached after warmup_steps, constant from there.
    learning_rate: float = 1.0e-6
    warmup_steps: int = 0
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    #: Gradient norm is clipped here.
    max_grad_norm: float = 1.0
    #: Most tokens (prompts once, responses once, padding counted) of a microbatch.
    microbatch_tokens: int = 8192
    #: Parts that are not trained: none, vision, vision+projector.
    freeze: str = "none"
    #: Recompute activations in the backward pass.
    gradient_checkpointing: bool = False
    #: Seconds to start, and for one update.
    start_timeout_s: float = 600.0
    timeout_s: float = 1800.0


@dataclass
class ReferenceConfig:
    #: Logical CPUs and GPUs of the reference model (started only when algo.beta > 0), and its threads on a CPU.
    cpus_per_worker: float = 0.3
    gpus_per_worker: int = 0
    threads: int = 1
    timeout_s: float = 600.0


@dataclass
class AlgoConfig:
    #: Policy loss: grpo.
    loss: str = "grpo"
    #: Ratio clipping: 1 - clip_ratio_low to 1 + clip_ratio_high.
    clip_ratio_low: float = 0.2
    clip_ratio_high: float = 0.2
    #: Weight of KL(policy || reference) in the loss; 0 starts no reference.
    beta: float = 0.04
    #: What advantages are divided by: group, batch, none.
    scale_rewards: str = "group"
    #: Least standard deviation to divide by.
    std_floor: float = 0.0


@dataclass
class GuardConfig:
    #: Most |engine - trainer| log-probability before the run stops; null: 1e-4 in float32, 1.0 in bfloat16.
    max_logprob_mismatch: float | None = None
    #: Most KL(policy || reference) before the first update; null: 1e-6 in float32, 1e-2 in bfloat16.
    max_initial_kl: float | None = None
    #: Prompts that the start-up proof samples.
    num_probe_prompts: int = 4


@dataclass
class EvalConfig:
    #: Evaluate every so many steps, besides before the first and after the last; 0: only these two.
    every: int = 0
    #: Most held-out prompts a reward type; null: all.
    prompts_per_type: int | None = None


@dataclass
class RunConfig:
    #: Name of the run, and the folder its own folder is made in.
    name: str = "quickstart"
    dir: str = "runs"
    #: Optimizer steps.
    max_steps: int = 160
    #: auto continues from the newest valid checkpoint, never demands a fresh folder, overwrite clears it.
    resume: str = "never"
    #: Seed of everything that is drawn.
    seed: int = 0
    #: Steps between checkpoints (one is always written at the end), and how many are kept; null keeps all.
    checkpoint_every: int = 50
    keep_checkpoints: int | None = 2
    #: Steps between written rollouts (rollouts/step_*.parquet).
    save_rollouts_every: int = 10


@dataclass
class TrackingConfig:
    #: Weights & Biases: disabled, offline, online; and its project.
    wandb: str = "disabled"
    project: str = "mixed-r1-ray"


@dataclass
class ClusterConfig:
    #: Ray cluster to join (`auto` finds a running one); null starts one here on 127.0.0.1 unless RAY_ADDRESS is set.
    address: str | None = None
    #: Logical CPUs of a cluster started here; null: the machine's.
    num_cpus: int | None = None
    #: GiB of its object store.
    object_store_gib: float = 0.5


@dataclass
class Config:
    model: ModelConfig = field(default_factory=ModelConfig)
    tiny: TinyConfig = field(default_factory=TinyConfig)
    data: DataConfig = field(default_factory=DataConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    algo: AlgoConfig = field(default_factory=AlgoConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    run: RunConfig = field(default_factory=RunConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
