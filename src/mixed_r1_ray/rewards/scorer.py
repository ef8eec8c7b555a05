"""All rewards behind one door: ours, the processes beside them, and the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mixed_r1_ray.config import RewardConfig
from mixed_r1_ray.rewards.embeddings import EmbeddingTable
from mixed_r1_ray.rewards.mixed import score_batch
from mixed_r1_ray.rewards.options import RewardOptions
from mixed_r1_ray.rewards.sample import RewardSample
from mixed_r1_ray.types import RewardBreakdown


class RewardScorer:
    """Scores samples of any reward type. Holds the processes that this needs; close it, or use it in a `with`."""

    def __init__(
        self,
        options: RewardOptions = RewardOptions(),
        *,
        embeddings: EmbeddingTable | None = None,
        custom: str | None = None,
        custom_types: Sequence[str] = ("custom",),
        custom_timeout_s: float = 10.0,
        math_timeout_s: float = 5.0,
    ):
        self.options = options
        self._embeddings = embeddings

    @classmethod
    def from_config(cls, reward: RewardConfig, embeddings: EmbeddingTable | None = None) -> RewardScorer:
        """The scorer that `reward.*` of a configuration describes."""
        return cls(RewardOptions.from_config(reward), embeddings=embeddings)

    def score(self, samples: Sequence[RewardSample], *, progress: float | None = None) -> list[RewardBreakdown]:
        """One breakdown a sample, in order; what could not be scored is None, and `detail` says why.

        progress: fraction of training done, for iou_mode=dynamic; None: that of the options.
        """
        options = self.options if progress is None else replace(self.options, progress=progress)
        return score_batch(samples, embeddings=self._embeddings, options=options)

    def close(self) -> None:
        """Ends the processes; the scorer cannot be used after."""

    def __enter__(self) -> RewardScorer:
        return self

    def __exit__(self, *_) -> None:
        self.close()
