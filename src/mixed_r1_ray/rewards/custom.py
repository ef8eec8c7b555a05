"""The user's own reward function, from outside: samples go to its process, values come back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from mixed_r1_ray.rewards.parse import TaskScore
from mixed_r1_ray.rewards.process import Answer, KillableProcess
from mixed_r1_ray.rewards.sample import RewardSample

BATCH = 256  # samples that a function is given at once, about (choice)


class CustomReward:
    """A function `path.py:function` or an entry point, running in a process of its own.

    timeout_s: for a sample, or for a call of a function that takes a batch. Raises UserError, naming file and
    function, if it cannot be loaded.
    """

    def __init__(self, spec: str, timeout_s: float):
        self.spec, self.timeout_s = spec, timeout_s
        self._process = KillableProcess(("custom", spec, str(timeout_s)), f"reward.custom={spec}")
        self._process.start()

    def score(self, samples: Sequence[RewardSample]) -> list[TaskScore | str]:
        """A score a sample, any finite number; or a text: why there is none."""
        answers = [
            answer
            for batch in _batches(samples)
            for answer in self._process.call([asdict(sample) for sample in batch], self.timeout_s)
        ]
        return [
            TaskScore(answer.value, answer.detail or self.spec)
            if answer.failure is None
            else self._why(answer, sample)
            for answer, sample in zip(answers, samples, strict=True)
        ]

    def close(self) -> None:
        """Ends its process."""
        self._process.close()

    def _why(self, answer: Answer, sample: RewardSample) -> str:
        where = f"prompt {sample.prompt_id!r}, sample {sample.sample_index}"
        return f"reward.custom={self.spec}, {where}: {answer.detail}"


def _batches(samples: Sequence[RewardSample]) -> Iterator[Sequence[RewardSample]]:
    """Some hundreds at a time: a group stays together unless it is as large as that itself."""
    start = 0
    for end in range(1, len(samples) + 1):
        size = end - start
        if (
            end == len(samples)
            or size >= 2 * BATCH
            or (size >= BATCH and samples[end].prompt_id != samples[end - 1].prompt_id)
        ):
            yield samples[start:end]
            start = end


def check_loads(spec: str) -> None:
    """Raises UserError where the function cannot be loaded here."""
    CustomReward(spec, timeout_s=1.0).close()
