"""The schema of a run: one dataclass a section.

The comment above a field is its documentation (`help=true` prints it). A field's type carries its bounds or
its valid values, so that they too are written once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from .config_types import Bounds, Count, Fraction, Momentum, NonNegative, Positive, Whole

TINY, SYNTHETIC = "tiny:", "synthetic"  # how a model's path begins, and what data is called, that a run makes itself


@dataclass
class ModelConfig:
    #: Checkpoint folder or hub name; `tiny:internvl` and `tiny:qwen2_5_vl` are built on the spot.
    path: str = "tiny:internvl"
    #: Number format of weights and activations.
    dtype: Literal["float32", "bfloat16"] = "float32"
    #: Longest prompt plus response, in tokens.
    max_length: Count = 512
    #: Least and most pixels of a picture (Qwen2.5-VL); null keeps the checkpoint's own.
    min_pixels: Count | None = None
    max_pixels: Count | None = None
    #: Most tiles of a picture (InternVL); null keeps the checkpoint's own.
    max_tiles: Count | None = None


@dataclass
class TinyConfig:
    #: Supervised steps of a tiny model's warm start.
    warm_start_steps: Whole = 600
    #: Seed of its initial weights and of its data.
    seed: Whole = 0
    #: Training and held-out prompts a reward type that the generator makes.
    train_per_type: Count = 1024
    eval_per_type: Count = 400
    #: Threads of the warm start.
    threads: Count = 2
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
    #: What a batch is made of: rows as often as the data has them (proportional), or the same number of each
    #: reward type or source.
    mixing: Literal["proportional", "by_type", "by_source"] = "proportional"
    #: by_type, by_source: weights of the named ones, where others have 1; 0 leaves one out. `data.weights.chart=2`.
    weights: dict[str, NonNegative] = field(default_factory=dict)
    #: easy_to_hard: rows of high pass rate first, all of them from a step on (docs/reading.md).
    curriculum: Literal["none", "easy_to_hard"] = "none"
    #: easy_to_hard: steps over which the harder rows come in.
    curriculum_steps: Count = 100
    #: Folder for copies of the data that are read a row at a time, as large as the data; best on a disk of each node.
    cache_dir: str = "runs/.cache"
    #: Run stops when more than this fraction of the rows is unusable.
    max_bad_fraction: Fraction = 0.05
    #: Processes that decode pictures and prepare model inputs.
    num_workers: Count = 1
    #: Logical CPUs of each.
    cpus_per_worker: NonNegative = 0.2
    #: Seconds to prepare one batch, and to copy and look through a split at the start.
    timeout_s: Positive = 600.0


@dataclass
class RolloutConfig:
    #: Number of vLLM engines.
    num_workers: Count = 1
    #: GPUs (tensor-parallel ranks) and logical CPUs of each engine.
    gpus_per_worker: Whole = 0
    cpus_per_worker: NonNegative = 0.5
    #: Prompts a step.
    prompts_per_step: Count = 32
    #: G, responses a prompt.
    group_size: Count = 8
    #: Sampling temperature; the trainer divides its logits by the same.
    temperature: Positive = 1.0
    #: Longest response, in tokens.
    max_new_tokens: Count = 64
    #: Memory for the KV cache: GiB on a CPU, fraction of the device on a GPU.
    kv_cache_gib: Positive = 0.25
    gpu_memory_fraction: Annotated[float, Bounds(above=0, most=1)] = 0.6
    #: Threads of an engine on a CPU.
    threads: Count = 1
    #: Most sequences an engine decodes at once; null: vLLM's own for the device (H100, H200: 1024; A100, CPU: 256).
    max_concurrent_sequences: Count | None = None
    #: How weights reach the engines: through Ray's object store; broadcast (NCCL) to engines on GPUs of their own; read
    #: by an engine where a learner on the same GPU has them (ipc); auto: the last two where they are possible.
    weight_transfer: Literal["auto", "object_store", "broadcast", "ipc"] = "auto"
    #: Seconds for the engine to start, and for one batch.
    start_timeout_s: Positive = 600.0
    timeout_s: Positive = 1800.0


@dataclass
class RewardConfig:
    #: Reward worker processes, and logical CPUs of each.
    num_workers: Count = 1
    cpus_per_worker: NonNegative = 0.1
    #: Most groups of one call: those that wait when a worker is free are scored together.
    batch_groups: Count = 8
    #: Weights of the two parts of a reward: total = task_weight * task + format_weight * format.
    task_weight: NonNegative = 1.0
    format_weight: NonNegative = 0.5
    #: Chart comparison: within 5 % on numbers (relaxed), equal, or normalised edit distance.
    chart_mode: Literal["relaxed", "exact", "edit_distance"] = "relaxed"
    #: Grounding reward: the IoU itself, 1 above a threshold, or a threshold that rises as training goes on.
    iou_mode: Literal["continuous", "threshold", "dynamic"] = "continuous"
    #: Threshold of `iou_mode: threshold`.
    iou_threshold: Fraction = 0.5
    #: dynamic: steps over which the threshold rises; null: run.max_steps.
    iou_dynamic_steps: Count | None = None
    #: How BMAS joins its two directions: their arithmetic mean, or their harmonic one (f1).
    bmas_mode: Literal["mean", "f1"] = "mean"
    #: Lists in charts: the order of their elements counts.
    chart_ordered: bool = False
    #: BMAS: b of the rescale (s - b) / (1 - b), what repeated 3-grams and a length unlike the gold's cost.
    bmas_baseline: Annotated[float, Bounds(least=0, most=0.999)] = 0.0
    bmas_repetition_penalty: Fraction = 0.0
    bmas_length_penalty: Fraction = 0.0
    #: BMAS leaves punctuation out.
    bmas_drop_punctuation: bool = False
    #: Counting: 1 for the same number, or nearness, 1 - |p - g| / max(p, g).
    counting_mode: Literal["exact", "relative"] = "exact"
    #: Your reward function: path.py:function, or an entry point's name (group mixed_r1_ray.rewards).
    custom: str | None = None
    #: Reward types that it scores, in place of the built-in reward.
    custom_types: list[str] = field(default_factory=lambda: ["custom"])
    #: Seconds that it may take for a sample, or for a call where it takes a batch.
    custom_timeout_s: Positive = 10.0
    #: Seconds that math may take for one answer.
    math_timeout_s: Positive = 5.0
    #: Seconds for one group, beside what math_timeout_s and custom_timeout_s allow for its samples.
    timeout_s: Positive = 60.0
    #: Run stops when more than this fraction of a step's samples could not be scored.
    max_unscored_fraction: Fraction = 0.1


@dataclass
class LearnerConfig:
    #: DeepSpeed ZeRO-3 ranks.
    num_workers: Count = 1
    gpus_per_worker: Annotated[int, Bounds(least=0, most=1)] = 0
    cpus_per_worker: NonNegative = 0.4
    #: Ranks on as few nodes as possible, or evenly over all (host memory and network for each, slower collectives).
    placement: Literal["pack", "spread"] = "pack"
    #: Threads of a rank on a CPU, which offload needs as well; null: its cpus_per_worker, at least one.
    threads: Count | None = None
    #: Peak learning rate of AdamW, reached after warmup_steps.
    learning_rate: NonNegative = 1.0e-6
    #: Optimizer steps in which the learning rate rises from zero.
    warmup_steps: Whole = 0
    #: What it does from there: stays, or falls to min_lr_ratio of its peak, in a line or as half a cosine.
    lr_scheduler: Literal["constant", "linear", "cosine"] = "constant"
    #: linear, cosine: what is left of the peak at the end of the schedule, and beyond it.
    min_lr_ratio: Fraction = 0.0
    #: linear, cosine: optimizer steps of the schedule, warm-up included; null: those of run.max_steps.
    schedule_steps: Count | None = None
    #: AdamW's decay rates, and its weight decay.
    betas: tuple[Momentum, Momentum] = (0.9, 0.95)
    weight_decay: NonNegative = 0.0
    #: Gradient norm is clipped here.
    max_grad_norm: Positive = 1.0
    #: An update whose gradient is not finite is skipped; at so many in a row the run stops.
    max_skipped_updates: Count = 3
    #: Most tokens (prompts once, responses once) of a microbatch.
    microbatch_tokens: Count = 8192
    #: Parts that are not trained.
    freeze: Literal["none", "vision", "vision+projector"] = "none"
    #: LoRA: rank of an adapter on every linear layer of the language model, which is then all that is trained; 0: none.
    lora_rank: Whole = 0
    #: Its outputs are scaled by lora_alpha / lora_rank.
    lora_alpha: Positive = 32.0
    #: Keep each layer's input alone, and compute the layer again in the backward pass: a tenth of the memory, more time.
    gradient_checkpointing: bool = False
    #: Keep gradients and AdamW's state in host memory, and update there, on all `threads`: slower, for fewer or smaller GPUs.
    offload: Literal["none", "optimizer"] = "none"
    #: Seconds to start, and for one update.
    start_timeout_s: Positive = 600.0
    timeout_s: Positive = 1800.0


@dataclass
class ReferenceConfig:
    #: Copies of the reference model, which take turns (started only when algo.beta > 0).
    num_workers: Count = 1
    #: Logical CPUs and GPUs of each.
    cpus_per_worker: NonNegative = 0.3
    gpus_per_worker: Annotated[int, Bounds(least=0, most=1)] = 0
    #: Threads of each on a CPU.
    threads: Count = 1
    #: Seconds for one batch.
    timeout_s: Positive = 600.0


@dataclass
class AlgoConfig:
    #: Policy loss and its aggregation over the batch (docs/algorithms.md).
    loss: Literal["grpo", "dapo", "dr_grpo", "gspo", "cispo"] = "grpo"
    #: Ratio clipping: 1 - clip_ratio_low to 1 + clip_ratio_high. Usual: 0.2 and 0.2; dapo 0.2 and 0.28;
    #: gspo 3e-4 and 4e-4.
    clip_ratio_low: Annotated[float, Bounds(above=0, most=1)] = 0.2
    clip_ratio_high: Positive = 0.2
    #: Dual clip: where the advantage is negative, the loss is at most so many times its size; null: any.
    clip_ratio_c: Annotated[float, Bounds(above=1)] | None = None
    #: cispo: the cap on the ratio, as such (TRL's epsilon_high; verl's is 1 + clip_ratio_high).
    cispo_ratio_max: Annotated[float, Bounds(least=1)] = 5.0
    #: Weight of KL(policy || reference) in the loss; 0 starts no reference, LoRA neither: it is the policy without adapter.
    beta: NonNegative = 0.04
    #: Its estimator. On-policy k2 has its gradient; k3 that of KL(reference || policy); k1 none.
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    #: Weigh the estimate by the ratio: then k1 and k3 have the gradient of KL(policy || reference).
    use_bias_correction_kl: bool = False
    #: Weight of the policy's mean entropy, which the loss rewards; 0: none.
    entropy_coef: NonNegative = 0.0
    #: Optimizer steps on a batch: it is cut into so many minibatches of whole groups, and gone over so many times.
    num_minibatches: Count = 1
    num_epochs: Count = 1
    #: Old policy of the ratio: the trainer's weights before a batch's first update, or the engine as it sampled.
    old_logprobs: Literal["trainer", "rollout"] = "trainer"
    #: What a reward is compared with: its group's mean (grpo; dr_grpo, not divided by a std), the mean of its
    #: group's others (rloo), its group's mean, then whitened over the batch (reinforce_plus_plus_baseline).
    advantage_estimator: Literal["grpo", "dr_grpo", "rloo", "reinforce_plus_plus_baseline"] = "grpo"
    #: grpo: whose standard deviation advantages are divided by.
    scale_rewards: Literal["group", "batch", "none"] = "group"
    #: Task and format reward: summed, then normalised by scale_rewards; or each normalised within its group, then
    #: summed and whitened over the batch (GDPO).
    multi_objective_aggregation: Literal["sum_then_normalize", "normalize_then_sum"] = "sum_then_normalize"
    #: Least standard deviation to divide by.
    std_floor: NonNegative = 0.0
    #: Soft overlong penalty: rewards fall over the last so many tokens before rollout.max_new_tokens; 0: off.
    overlong_buffer: Whole = 0
    #: What it has fallen by at the limit.
    overlong_penalty_factor: NonNegative = 1.0
    #: Responses cut at rollout.max_new_tokens are left out of the loss; their group's mean still has them.
    mask_truncated: bool = False
    #: Groups whose samples all earned the same are set aside, and further prompts of their type sampled for them.
    dynamic_sampling: bool = False
    #: dynamic_sampling: most times a step samples further; then groups without a difference fill the batch.
    max_refills: Count = 4
    #: k, versions of the weights that generation may be behind learning: batch s + k is generated while batch s is
    #: learned from. 0: every sample comes from the current weights.
    max_staleness: Whole = 0
    #: Importance weights of trainer to engine, of each token or each response (the product of its tokens').
    rollout_correction: Literal["none", "token", "sequence"] = "none"
    #: Weights above rollout_correction_max are lowered to it; or those outside a band become 0.
    rollout_correction_mode: Literal["truncate", "mask"] = "truncate"
    rollout_correction_max: Annotated[float, Bounds(least=1)] = 2.0
    #: Lower end of the band of `mask`; null: 1 / rollout_correction_max.
    rollout_correction_min: Annotated[float, Bounds(above=0, most=1)] | None = None


@dataclass
class GuardConfig:
    #: Most |engine - trainer| log-probability of a token before the run stops; in float32, below a log-probability of
    #: -0.25, in proportion more; null: 1e-4 in float32, no such bound in bfloat16.
    max_logprob_mismatch: Positive | None = None
    #: Most of their mean over the tokens of a proof, in bfloat16 also of a step; null: 1e-5 in float32, 0.1 in
    #: bfloat16.
    max_mean_mismatch: Positive | None = None
    #: Most of all but the largest 0.1 % of the tokens (at least 10) of a step or a proof; null: no such bound in
    #: float32, 1.0 in bfloat16.
    max_quantile_mismatch: Positive | None = None
    #: Most KL(policy || reference) before the first update; null: 1e-6 in float32, 1e-2 in bfloat16.
    max_initial_kl: Positive | None = None
    #: Prompts that the start-up proof samples; at least one for each engine.
    num_probe_prompts: Count = 4
    #: Steps between repetitions of that proof where algo.max_staleness > 0: samples of older weights prove nothing.
    probe_every: Count = 10


@dataclass
class EvalConfig:
    #: Evaluate every so many steps, besides before the first and after the last; 0: only these two.
    every: Whole = 0
    #: Most held-out prompts a reward type; null: all.
    prompts_per_type: Count | None = None


@dataclass
class RunConfig:
    #: Name of the run, and the folder its own folder is made in.
    name: str = "quickstart"
    dir: str = "runs"
    #: Steps: batches sampled and learned from.
    max_steps: Whole = 160
    #: When the folder holds a run: never refuses, auto continues from its newest valid checkpoint,
    #: overwrite clears it.
    resume: Literal["auto", "never", "overwrite"] = "never"
    #: Seed of everything that is drawn.
    seed: Whole = 0
    #: Steps between checkpoints (one is always written at the end), and how many are kept; null keeps all.
    checkpoint_every: Count = 50
    keep_checkpoints: Count | None = 2
    #: Held-out metric whose best checkpoint is kept besides, and written as soon as an evaluation sets a new best:
    #: eval/greedy/mean, eval/sampled/iou, …; null: none.
    keep_best: str | None = None
    #: Steps between written rollouts (rollouts/step_*.parquet).
    save_rollouts_every: Count = 10


@dataclass
class TrackingConfig:
    #: Weights & Biases.
    wandb: Literal["disabled", "offline", "online"] = "disabled"
    #: Project that runs are filed under there.
    project: str = "mixed-r1-ray"


@dataclass
class ClusterConfig:
    #: Ray cluster to join (`auto` finds a running one); null: RAY_ADDRESS, else one is started on 127.0.0.1.
    address: str | None = None
    #: Logical CPUs of a cluster started here; null: the machine's.
    num_cpus: Count | None = None
    #: Engines, learners and the reference take turns on the same GPUs instead of each having their own.
    share_gpus: bool = False
    #: Show what actors print in this terminal; it is in Ray's session folder in any case.
    actor_logs: bool = False
    #: GiB of its object store.
    object_store_gib: Annotated[float, Bounds(least=0.08)] = 0.5
    #: Times in a row that an engine, or the run from its last checkpoint, is started again after a failure.
    max_restarts: Whole = 3
    #: When a node is lost: continue from the last checkpoint on the others, with fewer actors where they hold no more;
    #: or stop.
    on_node_loss: Literal["continue", "stop"] = "continue"
    #: Seconds after which a wait is reported with what every actor is doing (RUN/stalls), or half its deadline.
    stall_s: Positive = 300.0
    #: Nodes that dry_run plans for, alike; null: this machine. A run refuses a cluster of fewer.
    nodes: Count | None = None
    #: GPUs and logical CPUs of each of these nodes.
    gpus_per_node: Whole = 8
    cpus_per_node: Count = 64
    #: GPUs whose published rates the step's estimate takes.
    gpu: Literal["A100", "H100", "H200"] = "H100"
    #: GiB of each GPU; null: as published for `gpu`.
    gpu_memory_gib: Positive | None = None
    #: GiB of host memory of each node that the plan is compared with; null: none.
    host_memory_gib: Positive | None = None
    #: Tokens that the step's estimate counts on; null: pictures at their cap, responses of half the limit.
    mean_prompt_tokens: Count | None = None
    mean_response_tokens: Count | None = None


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
