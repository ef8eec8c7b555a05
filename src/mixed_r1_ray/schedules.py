"""How long the things take that change over a run: as long as their own keys say, else as long as the run.

`run.max_steps` may grow when a run is continued; what has been learned until then was learned with the old length. So
runtime/run_config.py compares the lengths that are in use, wherever they come from.
"""

from __future__ import annotations

from .config import Config


def learning_rate_steps(config: Config) -> int:
    """Optimizer steps of the learning rate's schedule."""
    return config.learner.schedule_steps or planned_updates(config)


def iou_threshold_steps(config: Config) -> int:
    """Steps over which the threshold of `reward.iou_mode=dynamic` rises."""
    return config.reward.iou_dynamic_steps or config.run.max_steps


def planned_updates(config: Config) -> int:
    """Optimizer steps of the whole run."""
    return config.run.max_steps * config.algo.num_minibatches * config.algo.num_epochs


def lengths_in_use(config: Config) -> dict[str, int]:
    """Key -> steps, of those that matter to this run."""
    lengths = {}
    if config.learner.lr_scheduler != "constant":
        lengths["learner.schedule_steps"] = learning_rate_steps(config)
    if config.reward.iou_mode == "dynamic":
        lengths["reward.iou_dynamic_steps"] = iou_threshold_steps(config)
    return lengths


def spent(config: Config) -> str | None:
    """A warning where the learning rate is 0 before the run ends."""
    learner, planned = config.learner, planned_updates(config)
    left = planned - learning_rate_steps(config)
    if learner.lr_scheduler == "constant" or learner.min_lr_ratio or left <= 0:
        return None
    return (
        f"learner.schedule_steps {learner.schedule_steps} and learner.min_lr_ratio 0: the last {left} of {planned} "
        "updates have a learning rate of 0 and change nothing"
    )
