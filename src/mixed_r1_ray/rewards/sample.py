"""What is scored: one response, with all that a reward may look at."""

from __future__ import annotations

from dataclasses import dataclass

from mixed_r1_ray.rewards.parse import extract_answer
from mixed_r1_ray.types import BoxFrame


@dataclass(frozen=True, slots=True)
class RewardRequest:
    """One response to score. gold as a record stores it: text, boxes as JSON in original pixels.

    image_size: (width, height) in original pixels. box_frame: the one that boxes are said in; None: the same.
    """

    reward_type: str
    response: str
    gold: str
    question: str | None = None
    choices: tuple[str, ...] | None = None
    image_size: tuple[int, int] | None = None
    box_frame: BoxFrame | None = None

    @property
    def answer(self) -> str | None:
        """The text of the response's last complete `<answer>…</answer>`; None where there is none."""
        return extract_answer(self.response)


@dataclass(frozen=True, slots=True)
class RewardSample(RewardRequest):
    """A request that knows where it came from: what a user's reward function is given."""

    prompt_id: str = ""
    source: str = ""
    sample_index: int = 0  # of the group's responses
