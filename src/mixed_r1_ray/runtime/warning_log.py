"""Warnings of a run: each said once, all of them kept for the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Warned:
    """One warning, and the step it was first given at (None: outside the steps)."""

    text: str
    step: int | None


class WarningLog:
    """Collects warnings in warnings.jsonl; hands each new text to `show` once."""

    def __init__(self, path: Path | None = None, show: Callable[[str], None] | None = None) -> None:
        self._path = path
        self._show = show
        self.warnings: list[Warned] = read_warnings(path) if path is not None else []
        self._cut_line = path is not None and path.is_file() and path.read_bytes()[-1:] not in (b"\n", b"")
        self._seen = {warned.text for warned in self.warnings}
        self._shown: set[str] = set()

    def add(self, text: str, step: int | None = None) -> None:
        """Keeps a warning and shows it, unless this process has said it before."""
        if text not in self._shown and self._show is not None:
            self._show(text)
        self._shown.add(text)
        if text in self._seen:
            return
        self._seen.add(text)
        self.warnings.append(Warned(text, step))
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                if self._cut_line:
                    file.write("\n")
                    self._cut_line = False
                file.write(json.dumps({"step": step, "text": text}, ensure_ascii=False) + "\n")


def read_warnings(path: Path) -> list[Warned]:
    """Reads warnings.jsonl back; a half-written last line is left out."""
    if not path.is_file():
        return []
    warnings = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        warnings.append(Warned(entry["text"], entry["step"]))
    return warnings
