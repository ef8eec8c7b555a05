"""How many tokens a prompt has, pictures included, without processing each picture."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from mixed_r1_ray.config import Config
from mixed_r1_ray.vlm.base import VLMAdapter

Sizes = tuple[tuple[int, int], ...]


class PromptLengths:
    """Lengths of the prompts that a run of this configuration would make.

    The number of tokens of a picture depends on its size alone, and placeholders are special tokens, which no
    text merges with: so a length is that of the text plus what pictures of these sizes add. Both are
    remembered.
    """

    def __init__(self, adapter: VLMAdapter, config: Config):
        self.adapter = adapter
        self.config = config
        self.longest = config.model.max_length - config.rollout.max_new_tokens
        self._added_by = lru_cache(maxsize=65536)(self._measure_pictures)
        self._text_length = lru_cache(maxsize=4096)(self._count_text)

    def length(self, question: str, sizes: Sizes) -> int:
        """Tokens of the prompt. sizes: (width, height) of its pictures. Raises ValueError for what cannot be
        one.
        """
        return self._text_length(question, len(sizes)) + self._added_by(sizes)

    def find_fault(self, question: str, sizes: Sizes) -> tuple[str, str] | None:
        """(field, reason) where the prompt leaves no room for a response, or None."""
        try:
            length = self.length(question, sizes)
        except ValueError as error:  # a placeholder in the question, a picture too long for its height, ...
            return "prompt", str(error)
        if length <= self.longest:
            return None
        model, rollout = self.config.model, self.config.rollout
        return "question", (
            f"the prompt has {length} tokens with its pictures; model.max_length {model.max_length} - "
            f"rollout.max_new_tokens {rollout.max_new_tokens} leaves {self.longest}"
        )

    def _count_text(self, question: str, num_pictures: int) -> int:
        text = self._prompt(question, num_pictures)
        return len(self.adapter.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _measure_pictures(self, sizes: Sizes) -> int:
        blank = [np.zeros((height, width, 3), np.uint8) for width, height in sizes]
        encoded = self.adapter.encode(self._prompt("", len(sizes)), blank)
        return len(encoded.input_ids) - self._count_text("", len(sizes))

    def _prompt(self, question: str, num_pictures: int) -> str:
        asked = self.config.data.template.replace("{question}", question)
        return self.adapter.prompt_text(asked, num_pictures, self.config.data.system)
