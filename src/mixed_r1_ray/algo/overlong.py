"""The soft penalty of responses that come near the limit."""

from __future__ import annotations


def soft_overlong_penalty(length: int, max_length: int, buffer: int) -> float:
    """0 up to max_length - buffer tokens, from there falling linearly to -1 at max_length; never below.

    buffer >= 1, in tokens. Source: DAPO (Yu et al. 2025, arXiv 2503.14476), equation 13. TRL calls the buffer
    `soft_punish_cache`, verl `overlong_buffer.len`.
    """
    return max(-1.0, min(0, max_length - buffer - length) / buffer)
