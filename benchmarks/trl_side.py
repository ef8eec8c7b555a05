"""TRL's GRPOTrainer on the loop's model, prompts and rewards, one optimizer step whenever it is asked for one."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from mixed_r1_ray.config import Config

TRL_VERSION = "1.16.0"
INSTALL = f"this benchmark compares with TRL, which nothing else here needs: pip install trl=={TRL_VERSION}"


def require_trl() -> None:
    """Raises SystemExit, saying what to install, where TRL is not there in the compared version."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("trl")
    except PackageNotFoundError:
        raise SystemExit(INSTALL) from None
    if found != TRL_VERSION:
        raise SystemExit(f"{INSTALL} (found {found})")


@dataclass(frozen=True)
class TrlStep:
    """What one optimizer step of TRL took and made. lengths: tokens of each response."""

    seconds: float
    cpu_seconds: float
    lengths: tuple[int, ...]


def serve_trl(
    receive: Callable, send: Callable, config: Config, train_data: str, rows: list[int], threads: int, microbatch: int
) -> None:
    """Answers each request with a TrlStep over the next `rollout.prompts_per_step` of `rows`.

    microbatch: samples of one forward and backward; their gradients are accumulated into one optimizer step.
    """
    import torch
    from transformers import TrainerCallback
    from trl import GRPOTrainer

    torch.set_num_threads(threads)
    lengths: list[int] = []

    class OneStepARequest(TrainerCallback):
        """The clock runs from the request to the end of the optimizer step; between them the trainer waits."""

        begun = cpu_begun = 0.0

        def on_train_begin(self, *_, **__):
            send("ready")
            self._wait()

        def on_step_end(self, *_, **__):
            seconds, cpu_seconds = time.perf_counter() - self.begun, time.process_time() - self.cpu_begun
            send(TrlStep(seconds, cpu_seconds, tuple(lengths)))
            self._wait()

        def _wait(self):
            receive()
            lengths.clear()
            self.begun, self.cpu_begun = time.perf_counter(), time.process_time()

    trainer = GRPOTrainer(
        model=config.model.path,
        args=_arguments(config, len(rows) // config.rollout.prompts_per_step, microbatch),
        train_dataset=_dataset(train_data, rows, config.data.cache_dir),
        reward_funcs=_Reward(config, lengths),
        callbacks=[OneStepARequest()],
    )
    frozen = [name for name, parameter in trainer.model.named_parameters() if not parameter.requires_grad]
    assert not frozen, f"TRL does not train {frozen[:3]}"
    trainer.train()


def _arguments(config: Config, steps: int, microbatch: int):
    from trl import GRPOConfig

    from mixed_r1_ray.vlm.families import load_adapter

    samples = config.rollout.prompts_per_step * config.rollout.group_size
    learner = config.learner
    return GRPOConfig(
        output_dir="runs/benchmarks/trl",
        max_steps=steps,
        per_device_train_batch_size=microbatch,
        gradient_accumulation_steps=samples // microbatch,
        num_generations=config.rollout.group_size,
        max_completion_length=config.rollout.max_new_tokens,
        temperature=config.rollout.temperature,
        # Without it TRL sooner or later samples an image token and fails.
        generation_kwargs={"suppress_tokens": list(load_adapter(config.model).banned_token_ids)},
        beta=config.algo.beta,
        loss_type=config.algo.loss,
        epsilon=config.algo.clip_ratio_low,
        learning_rate=learner.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=learner.warmup_steps,
        adam_beta1=learner.betas[0],
        adam_beta2=learner.betas[1],
        weight_decay=learner.weight_decay,
        max_grad_norm=learner.max_grad_norm,
        model_init_kwargs={"dtype": "float32", "attn_implementation": "sdpa"},
        bf16=False,
        gradient_checkpointing=learner.gradient_checkpointing,
        use_cpu=True,
        shuffle_dataset=False,
        seed=config.run.seed,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )


def _dataset(train_data: str, rows: list[int], cache_dir: str):
    """The records as TRL wants them: a conversation, and a column of pictures that it puts ahead of the question."""
    from datasets import Dataset
    from PIL import Image

    from mixed_r1_ray.data.reader import RecordTable

    table = RecordTable(train_data, 0.0, cache_dir)
    records = [table.record(row) for row in rows]
    columns = {
        "prompt": [[{"role": "user", "content": record.question}] for record in records],
        "images": [[Image.open(io.BytesIO(image)).convert("RGB") for image in record.images] for record in records],
        "reward_type": [record.reward_type for record in records],
        "answer": [record.answer for record in records],
        "question": [record.question for record in records],
        "choices": [json.dumps(record.choices) for record in records],
        "size": [list(record.image_sizes[0]) if record.image_sizes else None for record in records],
    }
    return Dataset.from_dict(columns)


class _Reward:
    """The same Mixed-Reward for the same responses; notes their lengths."""

    __name__ = "mixed"

    def __init__(self, config: Config, lengths: list[int]):
        from mixed_r1_ray.rewards import EmbeddingTable
        from mixed_r1_ray.vlm.families import load_adapter

        self.lengths = lengths
        self.adapter = load_adapter(config.model)
        self.embeddings = EmbeddingTable.from_checkpoint(config.model.path)

    def __call__(self, completions, completion_ids, reward_type, answer, question, choices, size, **_):
        from mixed_r1_ray.rewards import RewardRequest, score_batch

        self.lengths.extend(len(ids) for ids in completion_ids)
        requests = [
            RewardRequest(
                reward_type=kind,
                response=completion[0]["content"],
                gold=gold,
                question=asked,
                choices=tuple(json.loads(offered)) if offered != "null" else None,
                image_size=tuple(sides) if sides else None,
                box_frame=self.adapter.box_frame(*sides) if sides else None,
            )
            for kind, completion, gold, asked, offered, sides in zip(
                reward_type, completions, answer, question, choices, size, strict=True
            )
        ]
        return [breakdown.total for breakdown in score_batch(requests, embeddings=self.embeddings)]
