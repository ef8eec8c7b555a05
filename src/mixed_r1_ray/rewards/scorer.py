"""All rewards behind one door: ours, the processes beside them, and the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mixed_r1_ray.config import RewardConfig
from mixed_r1_ray.rewards.custom import CustomReward
from mixed_r1_ray.rewards.embeddings import EmbeddingTable
from mixed_r1_ray.rewards.math_process import TIMEOUT_S, MathVerifier
from mixed_r1_ray.rewards.mixed import joined, score_batch
from mixed_r1_ray.rewards.options import RewardOptions, nearest
from mixed_r1_ray.rewards.sample import RewardSample
from mixed_r1_ray.types import REWARD_TYPES, RewardBreakdown


class RewardScorer:
    """Scores samples of any reward type. Holds the processes it needs: close it, or use it in a `with`.

    custom: `path.py:function` or an entry point; custom_types: the reward types it scores in place of ours.
    Raises UserError if that function cannot be loaded, ValueError for a type that there is not.
    """

    def __init__(
        self,
        options: RewardOptions = RewardOptions(),
        *,
        embeddings: EmbeddingTable | None = None,
        custom: str | None = None,
        custom_types: Sequence[str] = ("custom",),
        custom_timeout_s: float = 10.0,
        math_timeout_s: float = TIMEOUT_S,
    ):
        for kind in custom_types:
            if kind not in REWARD_TYPES:
                raise ValueError(
                    f"custom_types: unknown reward type {kind!r}{nearest(str(kind), REWARD_TYPES)}"
                )
        self.options = options
        self._embeddings = embeddings
        self._custom_types = frozenset(custom_types) if custom else frozenset()
        self._verifier = MathVerifier(math_timeout_s)
        self._custom = CustomReward(custom, custom_timeout_s) if custom else None

    @classmethod
    def from_config(cls, reward: RewardConfig, embeddings: EmbeddingTable | None = None) -> RewardScorer:
        """The scorer that `reward.*` of a configuration describes."""
        return cls(
            RewardOptions.from_config(reward),
            embeddings=embeddings,
            custom=reward.custom,
            custom_types=tuple(reward.custom_types),
            custom_timeout_s=reward.custom_timeout_s,
            math_timeout_s=reward.math_timeout_s,
        )

    def score(
        self, samples: Sequence[RewardSample], *, progress: float | None = None
    ) -> list[RewardBreakdown]:
        """One breakdown a sample, in order; what could not be scored is None, and `detail` says why.

        progress: fraction of training done, for iou_mode=dynamic; None: that of the options.
        """
        options = self.options if progress is None else replace(self.options, progress=progress)
        theirs = [sample for sample in samples if sample.reward_type in self._custom_types]
        ours = [sample for sample in samples if sample.reward_type not in self._custom_types]
        scored = iter(
            score_batch(ours, embeddings=self._embeddings, options=options, verifier=self._verifier)
        )
        tasks = iter(self._custom.score(theirs) if theirs else ())
        return [
            joined(sample, next(tasks), options) if sample.reward_type in self._custom_types else next(scored)
            for sample in samples
        ]

    def close(self) -> None:
        """Ends the processes."""
        self._verifier.close()
        if self._custom is not None:
            self._custom.close()

    def __enter__(self) -> RewardScorer:
        return self

    def __exit__(self, *_) -> None:
        self.close()
