"""Blots secrets out of what is written, printed or sent: config.yaml, warnings, messages, wandb."""

from __future__ import annotations

import os
import re
from typing import Any

BLOT = "…"
MIN_LENGTH = 8  # shorter values of the environment would blot ordinary words
_SECRET_NAME = re.compile(r"(?i)(^|_)(token|api_?key|access_?key(_id)?|secret(_.*)?|password|passwd|credentials?)$")
_URL_USER = re.compile(r"(?<=://)[^/@\s]+@")
_URL_PARAMETER = re.compile(r"(?i)(?<=[?&])((?:[\w-]*(?:token|key|secret|signature|password)|sig)=)[^&\s#]+")
_TOKEN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|sk-[\w-]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|AKIA[0-9A-Z]{16}"
    r"|xox[abpr]-[\w-]{10,}|wandb_v1_\w{20,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,})"
)


def redact(value: Any) -> Any:
    """A text, or everything in a dict or list, without its secrets.

    Those are: values of environment variables that are named as secrets (WANDB_API_KEY, HF_TOKEN, …), the user part
    and secret parameters of a URL, and what has the form of a well-known service's token.
    """
    if isinstance(value, dict):
        return {key: redact(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redact(inner) for inner in value]
    if not isinstance(value, str):
        return value
    for secret in _environment_secrets():
        value = value.replace(secret, BLOT)
    value = _URL_USER.sub(f"{BLOT}@", value)
    value = _URL_PARAMETER.sub(rf"\1{BLOT}", value)
    return _TOKEN.sub(BLOT, value)


def _environment_secrets() -> list[str]:
    """Longest first: one may hold another."""
    values = {value for name, value in os.environ.items() if _SECRET_NAME.search(name) and len(value) >= MIN_LENGTH}
    return sorted(values, key=len, reverse=True)
