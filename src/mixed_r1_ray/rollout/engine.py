"""A vLLM engine that samples groups, in this process: no Ray here, so a test or a notebook can drive it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mixed_r1_ray.config import Config
from mixed_r1_ray.guard import NumericsError
from mixed_r1_ray.rollout.sampling import group_seed
from mixed_r1_ray.runtime.provenance import gpu_name
from mixed_r1_ray.sync.broadcast import Meeting
from mixed_r1_ray.sync.sources import WeightSource
from mixed_r1_ray.types import MAX_PICTURES, EngineFacts, Group, Rollout, SamplingConfig
from mixed_r1_ray.vlm.base import BANNED_BIAS, VLMAdapter
from mixed_r1_ray.vlm.families import load_adapter

CPU_BATCHED_TOKENS = 4096  # prefilled in one engine step


class StaleCache(RuntimeError):
    """Keys and values of other weights are still there. No user's mistake: an engine in this one's place has none."""


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One prompt as the engine takes it. images: uint8 (H, W, 3) RGB arrays."""

    prompt_id: str
    text: str
    images: tuple[np.ndarray, ...]


class Engine:
    """Owns the vLLM engine, the version of its weights and the caches that depend on them."""

    def __init__(self, config: Config):
        _set_environment(config)
        from vllm import LLM

        self.config = config
        self.adapter: VLMAdapter = load_adapter(config.model)
        self.llm = LLM(**engine_arguments(config, self.adapter))
        self.version = 0
        self._cache_asleep = False

    def generate(self, requests: Sequence[EngineRequest], sampling: SamplingConfig, step: int) -> Iterator[Group]:
        """Yields each group as soon as its last sample is finished, in that order."""
        self._wake_cache()
        engine, unfinished = self.llm.llm_engine, set()
        try:
            for request in requests:
                engine.add_request(request.prompt_id, _vllm_prompt(request), self._params(request, sampling, step))
                unfinished.add(request.prompt_id)
            while engine.has_unfinished_requests():
                for output in engine.step():
                    if output.finished:
                        unfinished.discard(output.request_id)
                        yield self._group(output)
        finally:  # who reads may stop, or be stopped by what it read: the rest would come among the next groups
            if unfinished:
                engine.abort_request(sorted(unfinished))

    def join_broadcast(self, meeting: Meeting, first_rank: int) -> None:
        """Has the engine's workers enter the group in which learners send weights, from `first_rank` on."""
        self.llm.collective_rpc("join_broadcast", args=(meeting, first_rank))

    def load_weights(self, parts: Mapping[str, WeightSource], version: int) -> None:
        """Takes over `version` of the weights from the sources of its parts; a part that is left out stays as it is.

        Raises NumericsError naming the parameters that were left untouched, or what did not arrive as it was sent, and
        StaleCache where requests are still being generated.
        """
        unfilled = self.llm.collective_rpc("load_policy_weights", args=(parts,))
        self._forget_what_is_cached(version)
        for missing in unfilled:
            if missing:
                raise NumericsError(
                    f"weight version {version} left {len(missing)} engine parameters unfilled: {', '.join(missing[:5])}"
                )
        self.version = version

    def sleep(self) -> None:
        """Weights go to the host, the KV cache is forgotten. Level 1 (choice): no sync has to follow before it works."""
        self.llm.sleep(level=1)
        self._cache_asleep = True

    def wake(self) -> None:
        """Weights come back. The KV cache takes its memory when the next prompt comes: a sync needs the room before."""
        self.llm.wake_up(tags=["weights"])

    def _wake_cache(self) -> None:
        if self._cache_asleep:
            self.llm.wake_up(tags=["kv_cache"])
            self._forget_what_is_cached(self.version)
            self._cache_asleep = False

    def facts(self) -> EngineFacts:
        """What vLLM decided for this engine."""
        settings = self.llm.llm_engine.vllm_config
        language, vision = self.llm.collective_rpc("attention_kernels")[0]
        return EngineFacts(
            device=gpu_name() if self.config.rollout.gpus_per_worker else "CPU",
            model_runner="V2" if settings.use_v2_model_runner else "V1",
            attention=language,
            vision_attention=vision,
            cache_tokens=settings.cache_config.kv_cache_size_tokens,
            max_sequences=settings.scheduler_config.max_num_seqs,
        )

    def _forget_what_is_cached(self, version: int) -> None:
        """Of prompts and pictures: it was computed with other weights than `version`, or its memory was given away.

        vLLM resets no prefix cache of which requests hold blocks, and says so by False alone. The other two resets
        empty their caches whatever is going on, and return nothing.
        """
        if not self.llm.reset_prefix_cache():
            raise StaleCache(
                f"vLLM did not reset its prefix cache at weight version {version}: requests hold blocks of keys and "
                "values that other weights made"
            )
        self.llm.llm_engine.reset_mm_cache()
        self.llm.llm_engine.reset_encoder_cache()

    def _params(self, request: EngineRequest, sampling: SamplingConfig, step: int):
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            n=sampling.num_samples,
            seed=None if sampling.greedy else group_seed(self.config.run.seed, step, request.prompt_id),
            temperature=0.0 if sampling.greedy else sampling.temperature,
            max_tokens=sampling.max_new_tokens,
            logprobs=0,  # of the sampled token alone
            logit_bias={token: BANNED_BIAS for token in self.adapter.banned_token_ids},
            output_kind=RequestOutputKind.FINAL_ONLY,
            detokenize=False,  # token by token it takes a seventh of the time; `_text` does it once
        )

    def _group(self, output) -> Group:
        rollouts = []
        for sample in sorted(output.outputs, key=lambda sample: sample.index):
            tokens, finished = np.asarray(sample.token_ids, dtype=np.int32), sample.finish_reason == "stop"
            logprobs = [position[token].logprob for position, token in zip(sample.logprobs, sample.token_ids, strict=True)]
            rollouts.append(
                Rollout(
                    sample_index=sample.index,
                    token_ids=tokens,
                    logprobs=np.asarray(logprobs, dtype=np.float32),
                    weight_versions=np.full(len(tokens), self.version, dtype=np.int32),
                    text=self._text(tokens, finished),
                    finished=finished,
                )
            )
        prompt_ids = np.asarray(output.prompt_token_ids, dtype=np.int32)
        return Group(output.request_id, prompt_ids, tuple(rollouts))

    def _text(self, tokens: np.ndarray, finished: bool) -> str:
        """What the response says, without the token that ended it."""
        said = tokens[:-1] if finished else tokens
        return self.adapter.tokenizer.decode(said, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def engine_arguments(config: Config, adapter: VLMAdapter) -> dict:
    """Arguments of `vllm.LLM`."""
    rollout = config.rollout
    return {
        "model": config.model.path,
        "dtype": config.model.dtype,
        "max_model_len": config.model.max_length,
        "max_num_seqs": rollout.max_concurrent_sequences,
        "seed": config.run.seed,
        "logprobs_mode": "processed_logprobs",
        "limit_mm_per_prompt": {"image": MAX_PICTURES, "video": 0},
        "mm_processor_cache_gb": 0,  # a picture is sent once
        "enable_prefix_caching": True,
        "worker_extension_cls": "mixed_r1_ray.sync.engine_extension.WeightLoading",
        "disable_log_stats": True,
        **(_gpu_arguments(config) if rollout.gpus_per_worker else _cpu_arguments(config)),
        **adapter.engine_kwargs(),
    }


def _gpu_arguments(config: Config) -> dict:
    return {
        "tensor_parallel_size": config.rollout.gpus_per_worker,
        # In a placement group vLLM would otherwise ask Ray for workers of its own.
        "distributed_executor_backend": "mp" if config.rollout.gpus_per_worker > 1 else None,
        "gpu_memory_utilization": config.rollout.gpu_memory_fraction,
        "enable_sleep_mode": config.cluster.share_gpus,
    }


def _cpu_arguments(config: Config) -> dict:
    return {
        "enforce_eager": True,
        "kv_cache_memory_bytes": int(config.rollout.kv_cache_gib * 2**30),
        # A prompt prefilled in parts makes vLLM rewind its sample's generator, which a CPU generator cannot do.
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(config.model.max_length, CPU_BATCHED_TOKENS),
    }


def _set_environment(config: Config) -> None:
    """Keeps the engine core in this process, quiet, and its threads under our control. Before vLLM is imported."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    if config.rollout.gpus_per_worker == 0:
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        os.environ["OMP_NUM_THREADS"] = str(config.rollout.threads)  # of its children; here OpenMP is loaded by now
        import torch

        torch.set_num_threads(config.rollout.threads)


def _vllm_prompt(request: EngineRequest) -> dict:
    if not request.images:
        return {"prompt": request.text}
    from PIL import Image

    pictures = [Image.fromarray(image) for image in request.images]
    return {"prompt": request.text, "multi_modal_data": {"image": pictures}}
