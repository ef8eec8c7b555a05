"""The supervised start of a tiny model: cross-entropy on gold answers of the training split.

A row is one picture and every question asked of it, each question blind to the others, in the learner's own
packed layout: what the layout calls prompt is here the picture, and a response is question and answer.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mixed_r1_ray.config import ModelConfig
from mixed_r1_ray.data.images import decode_image
from mixed_r1_ray.data.schema import Record
from mixed_r1_ray.vlm import tiny, tiny_tokenizer
from mixed_r1_ray.vlm.base import VLMAdapter

PICTURES_PER_STEP = 48
PICTURES_PER_FORWARD = 16  # rows of like length together: less padding
MUON_LEARNING_RATE, ADAMW_LEARNING_RATE = 4e-3, 2e-3
WARMUP_FRACTION, FINAL_FRACTION = 0.05, 0.4


def warm_start(
    cache_dir: str | Path,
    family: tiny.Family,
    train_data: str | Path,
    seed: int = 0,
    steps: int = 400,
    threads: int = 1,
    progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> Path:
    """The checkpoint of a tiny model after `steps` supervised steps, made once.

    train_data: Parquet of records whose `meta` holds `picture` (those that share one are packed) and `think`.
    progress: called after each step with its number (from 1), their count and the loss.
    """
    folder = Path(cache_dir) / f"tiny-{family}-{_key(family, Path(train_data), seed, steps)}"
    if not (folder / "config.json").is_file():
        unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
        try:
            _train(unfinished, family, Path(train_data), seed, steps, threads, progress)
            shutil.rmtree(folder, ignore_errors=True)
            unfinished.replace(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def gold_response(record: Record, adapter: VLMAdapter) -> str:
    """The response that scores full marks, boxes in the frame in which the family speaks."""
    answer = record.answer
    if record.reward_type == "iou":
        (width, height), frame = record.image_sizes[0], adapter.box_frame(*record.image_sizes[0])
        scale = (frame.width / width, frame.height / height) * 2
        answer = json.dumps([round(value * factor) for value, factor in zip(json.loads(answer), scale)])
    return f"<think>{json.loads(record.meta)['think']}</think><answer>{answer}</answer>"


@dataclass(frozen=True, slots=True)
class _PictureRow:
    """A picture; for each question, token ids of question and gold response, and the question's length."""

    image: bytes
    questions: tuple[tuple[np.ndarray, int], ...]

    @property
    def num_tokens(self) -> int:
        return sum(len(token_ids) for token_ids, _ in self.questions)


def _key(family: str, train_data: Path, seed: int, steps: int) -> str:
    import torch
    import transformers

    files = (__file__, tiny.__file__, tiny_tokenizer.__file__, train_data)
    parameters = repr((family, seed, steps, torch.__version__, transformers.__version__))
    made_of = [*(Path(file).read_bytes() for file in files), parameters.encode()]
    return hashlib.sha256(b"\0".join(made_of)).hexdigest()[:16]


def _train(
    folder: Path,
    family: tiny.Family,
    train_data: Path,
    seed: int,
    steps: int,
    threads: int,
    progress: Callable[[int, int, float], None],
) -> None:
    import torch

    from mixed_r1_ray.policy.loading import load_policy

    torch.set_num_threads(threads)
    records = _read(train_data)
    tiny.save_tiny(folder, family, _texts(records), seed)
    policy = load_policy(ModelConfig(path=str(folder)), temperature=1.0)
    rows = _picture_rows(records, policy.adapter)
    optimizers = _optimizers(policy.model)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
        for optimizer in optimizers
    ]
    batches = _batches(rows, np.random.default_rng(seed))
    for step in range(1, steps + 1):
        loss = _accumulate_gradients(policy, next(batches))
        torch.nn.utils.clip_grad_norm_(policy.model.parameters(), 1.0)
        for each in (*optimizers, *schedules):
            each.step()
        policy.model.zero_grad(set_to_none=True)
        progress(step, steps, loss)
    policy.model.save_pretrained(folder)


def _read(train_data: Path) -> list[Record]:
    import pyarrow.parquet as pq

    return [Record.from_row(row) for row in pq.read_table(train_data).to_pylist()]


def _texts(records: list[Record]) -> Iterator[str]:
    """All that the vocabulary must cover; box coordinates in thousandths as well as in pixels."""
    for record in records:
        yield from (record.question, record.answer, json.loads(record.meta)["think"])
        if record.reward_type == "iou":
            (width, height), box = record.image_sizes[0], json.loads(record.answer)
            yield " ".join(str(round(1000 * value / side)) for value, side in zip(box, (width, height) * 2))


def _picture_rows(records: list[Record], adapter: VLMAdapter) -> list[_PictureRow]:
    pictures: dict[str, list[Record]] = {}
    for record in records:
        pictures.setdefault(json.loads(record.meta)["picture"], []).append(record)
    return [
        _PictureRow(group[0].images[0], tuple(_tokenised(record, adapter) for record in group))
        for group in pictures.values()
    ]


def _tokenised(record: Record, adapter: VLMAdapter) -> tuple[np.ndarray, int]:
    tokenizer = adapter.tokenizer
    question = tokenizer(record.question + tiny_tokenizer.ASSISTANT)["input_ids"]
    response = tokenizer(gold_response(record, adapter) + tiny_tokenizer.END)["input_ids"]
    return np.array(question + response), len(question)


def _batches(rows: list[_PictureRow], rng: np.random.Generator) -> Iterator[list[_PictureRow]]:
    """Endless; every epoch in a new order. Of fewer rows than a step wants, all."""
    size = min(PICTURES_PER_STEP, len(rows))
    while True:
        order = rng.permutation(len(rows))
        for start in range(0, len(rows) - size + 1, size):
            yield [rows[index] for index in order[start : start + size]]


def _accumulate_gradients(policy, batch: list[_PictureRow]) -> float:
    """Backward of the mean negative log-likelihood over all response tokens of `batch`; returns that mean."""
    batch = sorted(batch, key=lambda row: row.num_tokens)
    total = sum(len(token_ids) - asked for row in batch for token_ids, asked in row.questions)
    loss = 0.0
    for start in range(0, len(batch), PICTURES_PER_FORWARD):
        part = _negative_log_likelihood(policy, batch[start : start + PICTURES_PER_FORWARD]) / total
        part.backward()
        loss += part.item()
    return loss


def _negative_log_likelihood(policy, rows: list[_PictureRow]):
    import torch

    adapter = policy.adapter
    opening = adapter.prompt_text("", num_images=1)
    pictures = [adapter.encode(opening, [decode_image(row.image)]) for row in rows]
    pictures = [
        replace(picture, input_ids=picture.input_ids[:-1]) for picture in pictures
    ]  # without ASSISTANT
    packed = policy.pack(pictures, [[ids for ids, _ in row.questions] for row in rows])
    answered = torch.cat([torch.arange(len(ids)) >= asked for row in rows for ids, asked in row.questions])
    logprobs, _ = policy(packed)
    return -logprobs[answered].sum()


def _optimizers(model) -> list:
    """Muon (Jordan et al. 2024) for the matrices inside the layers, AdamW for all else."""
    import torch

    inside = [
        parameter.dim() == 2 and "embed" not in name and "lm_head" not in name
        for name, parameter in model.named_parameters()
    ]
    parameters = list(model.parameters())
    return [
        torch.optim.Muon(
            [parameter for parameter, is_inside in zip(parameters, inside) if is_inside],
            lr=MUON_LEARNING_RATE,
            weight_decay=0.0,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(
            [parameter for parameter, is_inside in zip(parameters, inside) if not is_inside],
            lr=ADAMW_LEARNING_RATE,
            betas=(0.9, 0.95),
            weight_decay=0.0,
        ),
    ]


def _rate(step: int, steps: int) -> float:
    """Linear up, then linear down to FINAL_FRACTION."""
    warmup = max(1, WARMUP_FRACTION * steps)
    return min((step + 1) / warmup, FINAL_FRACTION + (1 - FINAL_FRACTION) * (1 - step / max(1, steps)))
