"""The format reward: one thought, then one answer, and nothing else."""

from __future__ import annotations

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def format_score(response: str) -> float:
    """1.0 if the response is exactly `<think>…</think><answer>…</answer>`, each tag once, else 0.0.

    White space may stand around and between the two blocks, newlines inside. Linear time.
    """
    text = response.strip()
    if any(text.count(tag) != 1 for tag in _TAGS):
        return 0.0
    if not text.startswith("<think>") or not text.endswith("</answer>"):
        return 0.0
    think_end = text.find("</think>")
    answer_start = text.find("<answer>", think_end)
    if answer_start < 0:
        return 0.0
    return float(not text[think_end + len("</think>") : answer_start].strip())
