"""Checkpoints with one matrix for input and output embeddings, as Qwen2.5-VL's 3B model has it."""

from __future__ import annotations


def tie_embeddings(path: str, folder: str) -> None:
    """The checkpoint at `path` with its output head replaced by the input embeddings."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(path)
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(folder)
    AutoProcessor.from_pretrained(path).save_pretrained(folder)
