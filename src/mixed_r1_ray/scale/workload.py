"""How many tokens a step's prompts and responses have: at most, for memory; expected, for time."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import Config
from .architecture import Architecture

QUESTION_TOKENS = 128  # choice: system message, question and chat format around the picture


@dataclass(frozen=True)
class Workload:
    """One step. Lengths are of one prompt (its picture's tokens included) and of one response."""

    prompts: int
    group_size: int
    prompt_tokens: int
    picture_tokens: int
    response_tokens: int
    longest_response: int

    @property
    def samples(self) -> int:
        return self.prompts * self.group_size

    @property
    def group_tokens(self) -> int:
        """Tokens of one packed group: the prompt once."""
        return self.prompt_tokens + self.group_size * self.response_tokens

    @classmethod
    def at_most(cls, config: Config, architecture: Architecture) -> Workload:
        """Every picture at its cap, every response at the limit."""
        return cls._of(config, architecture, config.rollout.max_new_tokens)

    @classmethod
    def expected(cls, config: Config, architecture: Architecture) -> Workload:
        """As `cluster.mean_prompt_tokens` and `cluster.mean_response_tokens` say.

        Without them: pictures at their cap, and responses of half the limit (choice).
        """
        mean = config.cluster.mean_response_tokens or max(1, config.rollout.max_new_tokens // 2)
        return cls._of(config, architecture, mean, config.cluster.mean_prompt_tokens)

    @classmethod
    def _of(
        cls, config: Config, architecture: Architecture, response_tokens: int, prompt_tokens: int | None = None
    ) -> Workload:
        rollout, model = config.rollout, config.model
        room = model.max_length - rollout.max_new_tokens
        picture = architecture.picture_tokens(model.max_tiles, model.max_pixels)
        prompt = prompt_tokens or min(room, room if picture is None else picture + QUESTION_TOKENS)
        return cls(
            prompts=rollout.prompts_per_step,
            group_size=rollout.group_size,
            prompt_tokens=prompt,
            picture_tokens=prompt if picture is None else min(picture, prompt),
            response_tokens=response_tokens,
            longest_response=rollout.max_new_tokens,
        )
