"""Generation as vLLM's documentation has it, of the run's prompts: one process, no Ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from mixed_r1_ray.config import Config
from mixed_r1_ray.types import Group


def serve_generation(receive: Callable, send: Callable, config: Config, train_data: str) -> None:
    """Answers each (step, rows) with seconds and tokens generated: the prompts and seeds of the loop's step."""
    plain = PlainGeneration(config, train_data)
    send("ready")
    while True:
        step, rows = receive()
        prepared = plain.prepare(rows)
        begun = time.perf_counter()
        groups = plain.generate(prepared, step)
        seconds = time.perf_counter() - begun
        send((seconds, sum(len(rollout.token_ids) for group in groups for rollout in group.rollouts)))


class PlainGeneration:
    """vLLM with the run's arguments."""

    def __init__(self, config: Config, train_data: str):
        from mixed_r1_ray.data.reader import RecordTable
        from mixed_r1_ray.rollout.engine import Engine

        self.config = config
        self.engine = Engine(config)
        self.table = RecordTable(train_data, 0.0, config.data.cache_dir)

    def prepare(self, rows: Sequence[int]) -> list:
        from mixed_r1_ray.data.images import decode_image
        from mixed_r1_ray.data.worker import prepare_prompt

        records = [self.table.record(row) for row in rows]
        return [
            prepare_prompt(record, tuple(map(decode_image, record.images)), self.engine.adapter, self.config)
            for record in records
        ]

    def generate(self, prepared: Sequence, step: int) -> list[Group]:
        """`vllm.LLM.generate`, as its documentation calls it."""
        from PIL import Image
        from vllm import SamplingParams

        from mixed_r1_ray.rollout.sampling import group_seed
        from mixed_r1_ray.types import Rollout
        from mixed_r1_ray.vlm.base import BANNED_BIAS

        rollout = self.config.rollout
        prompts = [
            {"prompt": one.prompt.text, "multi_modal_data": {"image": [Image.fromarray(image) for image in one.images]}}
            for one in prepared
        ]
        params = [
            SamplingParams(
                n=rollout.group_size,
                seed=group_seed(self.config.run.seed, step, one.prompt.prompt_id),
                temperature=rollout.temperature,
                max_tokens=rollout.max_new_tokens,
                logprobs=0,
                logit_bias={token: BANNED_BIAS for token in self.engine.adapter.banned_token_ids},
            )
            for one in prepared
        ]
        outputs = self.engine.llm.generate(prompts, params, use_tqdm=False)
        groups = []
        for one, output in zip(prepared, outputs, strict=True):
            samples = [
                Rollout(
                    sample_index=sample.index,
                    token_ids=np.asarray(sample.token_ids, dtype=np.int32),
                    logprobs=np.asarray([next(iter(place.values())).logprob for place in sample.logprobs], np.float32),
                    weight_versions=np.zeros(len(sample.token_ids), dtype=np.int32),
                    text=sample.text,
                    finished=sample.finish_reason == "stop",
                )
                for sample in output.outputs
            ]
            groups.append(Group(one.prompt.prompt_id, np.asarray(output.prompt_token_ids), tuple(samples)))
        return groups
