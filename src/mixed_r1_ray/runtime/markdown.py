"""Texts of unknown origin, made harmless for Markdown pages."""

from __future__ import annotations

import json
import re

SHOWN_CHARACTERS = 300


def cell(text: object) -> str:
    """Any text as one line of HTML in which neither Markdown nor HTML is read, cut at SHOWN_CHARACTERS."""
    line = " ".join(str(text).split())
    line = line if len(line) <= SHOWN_CHARACTERS else f"{line[:SHOWN_CHARACTERS]}…"
    return re.sub(r"""[&<>"'\\`*_{}\[\]()#+!|~$:]""", lambda sign: f"&#{ord(sign[0])};", line)


def yaml_text(text: str) -> str:
    """A double-quoted YAML scalar."""
    return json.dumps(" ".join(text.split()), ensure_ascii=False)


def link(url: str) -> str:
    """A web address as a link, anything else as text."""
    if re.fullmatch(r"https?://[^\s<>()\"'|\\]+", url):
        return f"[{cell(url.split('//')[1])}]({url})"
    return cell(url)
