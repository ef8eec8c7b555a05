"""How long schedules take, and what they come to when they are over before the run is."""

from __future__ import annotations

from mixed_r1_ray.config import AlgoConfig, Config, LearnerConfig, RewardConfig, RunConfig
from mixed_r1_ray.schedules import iou_threshold_steps, learning_rate_steps, lengths_in_use, spent


def configured(**learner) -> Config:
    return Config(
        learner=LearnerConfig(**learner), algo=AlgoConfig(num_minibatches=4, num_epochs=3), run=RunConfig(max_steps=10)
    )


def test_the_learning_rate_counts_optimizer_steps_not_steps():
    assert learning_rate_steps(configured()) == 120
    assert learning_rate_steps(configured(schedule_steps=7)) == 7
    assert iou_threshold_steps(configured()) == 10


def test_only_lengths_in_use_count():
    assert lengths_in_use(configured()) == {}
    assert lengths_in_use(configured(lr_scheduler="cosine")) == {"learner.schedule_steps": 120}
    dynamic = Config(reward=RewardConfig(iou_mode="dynamic", iou_dynamic_steps=5))
    assert lengths_in_use(dynamic) == {"reward.iou_dynamic_steps": 5}


def test_updates_at_a_rate_of_0_are_told():
    assert "the last 20 of 120 updates" in spent(configured(lr_scheduler="linear", schedule_steps=100))
    for harmless in (
        {},
        dict(lr_scheduler="cosine"),
        dict(lr_scheduler="cosine", schedule_steps=120),
        dict(lr_scheduler="cosine", schedule_steps=100, min_lr_ratio=0.1),
    ):
        assert spent(configured(**harmless)) is None
