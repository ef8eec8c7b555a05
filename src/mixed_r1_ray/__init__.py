"""Mixed-R1 on Ray: GRPO for vision-language models on many kinds of task at once."""

from __future__ import annotations

__version__ = "0.1.0"
