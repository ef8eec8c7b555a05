"""Mixed-Reward: matching, chart, IoU and open-ended rewards, the format reward, and their total.

Pure functions on text and numbers; the actor that runs them lives in `rewards.worker`.
"""

from mixed_r1_ray.rewards.embeddings import EmbeddingTable
from mixed_r1_ray.rewards.mixed import score, score_batch, validate_gold
from mixed_r1_ray.rewards.options import RewardOptions
from mixed_r1_ray.rewards.parse import GoldError
from mixed_r1_ray.rewards.sample import RewardRequest, RewardSample
from mixed_r1_ray.rewards.scorer import RewardScorer

__all__ = [
    "EmbeddingTable",
    "GoldError",
    "RewardOptions",
    "RewardRequest",
    "RewardSample",
    "RewardScorer",
    "score",
    "score_batch",
    "validate_gold",
]
