"""The reference policy: the model as it was at step 0, frozen. Started only when `algo.beta` > 0."""

from __future__ import annotations

import numpy as np
import ray
import torch

from mixed_r1_ray.config import Config
from mixed_r1_ray.gpu_memory import forget_peak, peak_bytes
from mixed_r1_ray.policy.device import worker_device
from mixed_r1_ray.policy.host_copy import HostCopy
from mixed_r1_ray.policy.loading import load_policy
from mixed_r1_ray.types import Group, PromptInputs
from mixed_r1_ray.whereabouts import observed


@ray.remote(max_restarts=-1)
@observed
class ReferenceWorker:
    """Answers with log-probabilities, group by group, while other groups are still being generated.

    It keeps nothing: where its process dies, Ray starts another and repeats the call.
    """

    def __init__(self, config: Config):
        torch.set_num_threads(config.reference.threads)
        self.device = worker_device("reference", config.reference.gpus_per_worker)
        self.policy = load_policy(config.model, config.rollout.temperature).eval().requires_grad_(False)
        self.host = HostCopy(self.device)
        if not config.cluster.share_gpus:
            self.wake()

    def ready(self) -> bool:
        return True

    def wake(self) -> None:
        """To its GPU, if it has one. Where others share that, it begins on the host."""
        forget_peak()
        self.policy.to(self.device)  # moves something the first time alone
        self.host.bring_back()

    def sleep(self) -> int | None:
        """Off its GPU; returns the most bytes that were in use there."""
        peak = peak_bytes()
        self.host.take_off(constant=[*self.policy.parameters(), *self.policy.buffers()])
        return peak

    @torch.inference_mode()
    @ray.method(num_returns=2, max_task_retries=3)
    def logprobs(self, inputs: PromptInputs, group: Group) -> tuple[bool, tuple[np.ndarray, ...]]:
        """That it is done, for the driver, and log-probabilities of each response's tokens, float32 (T,) each."""
        responses = [rollout.token_ids for rollout in group.rollouts]
        logprobs, _ = self.policy(self.policy.pack([inputs], [responses]))
        lengths = [len(response) for response in responses]
        return True, tuple(part.numpy() for part in logprobs.cpu().split(lengths))
