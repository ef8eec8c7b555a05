"""Mixed-R1 on Ray: GRPO for vision-language models on many kinds of task at once."""

from __future__ import annotations

from mixed_r1_ray.environment import settle_waits

__version__ = "0.1.0"

settle_waits()
