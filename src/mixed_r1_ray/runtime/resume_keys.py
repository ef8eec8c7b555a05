"""Which keys may differ when a run is continued. Every key of the schema stands in one of the two lists.

MAY_CHANGE: where and how fast things are computed, when the run gives up waiting or stops, what is evaluated, kept and
told. Sums may be taken in another order, so a curve may differ by rounding; what is learned from what is the same.
ANOTHER_RUN: all else.

Evaluation among the former: held-out answers change no weight. Evaluations of other prompts are never compared with
each other, though: not for `run.keep_best` and export's `best` (runtime/checkpoint_choice.py), and in tables and report
only prompt by prompt.
"""

from __future__ import annotations


def _keys(section: str, names: str) -> tuple[str, ...]:
    return tuple(f"{section}.{name}" for name in names.split())


MAY_CHANGE = frozenset(
    (
        *_keys("tiny", "eval_per_type threads cache_dir"),
        *_keys("data", "eval cache_dir max_bad_fraction num_workers cpus_per_worker timeout_s"),
        *_keys("rollout", "num_workers gpus_per_worker cpus_per_worker kv_cache_gib gpu_memory_fraction threads"),
        *_keys("rollout", "max_concurrent_sequences weight_transfer start_timeout_s timeout_s"),
        *_keys("reward", "num_workers cpus_per_worker batch_groups custom_timeout_s math_timeout_s timeout_s"),
        *_keys("reward", "max_unscored_fraction"),
        *_keys("learner", "num_workers gpus_per_worker cpus_per_worker placement threads microbatch_tokens"),
        *_keys("learner", "gradient_checkpointing offload max_skipped_updates start_timeout_s timeout_s"),
        *_keys("reference", "num_workers cpus_per_worker gpus_per_worker threads timeout_s"),
        *_keys("guard", "max_logprob_mismatch max_mean_mismatch max_quantile_mismatch max_initial_kl num_probe_prompts probe_every"),
        *_keys("eval", "every prompts_per_type"),
        *_keys("run", "name dir max_steps resume checkpoint_every keep_checkpoints keep_best save_rollouts_every"),
        *_keys("tracking", "wandb project"),
        *_keys("cluster", "address num_cpus share_gpus actor_logs object_store_gib max_restarts on_node_loss stall_s"),
        *_keys("cluster", "nodes gpus_per_node cpus_per_node gpu gpu_memory_gib host_memory_gib"),
        *_keys("cluster", "mean_prompt_tokens mean_response_tokens"),
    )
)

ANOTHER_RUN = frozenset(
    (
        *_keys("model", "path dtype max_length min_pixels max_pixels max_tiles"),
        *_keys("tiny", "warm_start_steps seed train_per_type"),
        *_keys("data", "train template system mixing weights curriculum curriculum_steps"),
        *_keys("rollout", "prompts_per_step group_size temperature max_new_tokens"),
        *_keys("reward", "task_weight format_weight chart_mode iou_mode iou_threshold iou_dynamic_steps bmas_mode"),
        *_keys("reward", "chart_ordered bmas_baseline bmas_repetition_penalty bmas_length_penalty"),
        *_keys("reward", "bmas_drop_punctuation counting_mode custom custom_types"),
        *_keys("learner", "learning_rate warmup_steps lr_scheduler min_lr_ratio schedule_steps betas weight_decay"),
        *_keys("learner", "max_grad_norm freeze lora_rank lora_alpha"),
        *_keys("algo", "loss clip_ratio_low clip_ratio_high clip_ratio_c cispo_ratio_max beta kl_estimator"),
        *_keys("algo", "use_bias_correction_kl entropy_coef num_minibatches num_epochs old_logprobs"),
        *_keys("algo", "advantage_estimator scale_rewards multi_objective_aggregation std_floor overlong_buffer"),
        *_keys("algo", "overlong_penalty_factor mask_truncated dynamic_sampling max_refills max_staleness"),
        *_keys("algo", "rollout_correction rollout_correction_mode rollout_correction_max rollout_correction_min"),
        *_keys("run", "seed"),
    )
)
