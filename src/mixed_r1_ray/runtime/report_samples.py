"""The report's samples: which held-out prompts are shown, their pictures, and the boxes drawn on them."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from mixed_r1_ray.runtime import atomic
from mixed_r1_ray.runtime.evaluation_table import EvalResult
from mixed_r1_ray.types import REWARD_TYPES

LONGEST_SIDE = 768  # pixels of a stored picture; a larger one is made smaller
_NUMBER = r"(-?\d+(?:\.\d+)?)"
_BOX = re.compile(r"[\[(]\s*" + r"\s*,\s*".join([_NUMBER] * 4) + r"\s*[\])]")
_ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class DrawnBox:
    """A box as fractions of its picture's width and height."""

    kind: str  # gold, before, after
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt of the report with its greedy answers; `after` is None where there was one evaluation."""

    prompt: EvalResult
    before: EvalResult
    after: EvalResult | None
    picture: str | None  # data URI
    boxes: tuple[DrawnBox, ...]


def choose_samples(results: Sequence[EvalResult], per_type: int = 3) -> list[str]:
    """Prompt ids to show: `per_type` of each type, sources in turn, in an order blind to the results."""
    chosen: list[str] = []
    kinds = {result.reward_type for result in results}
    for kind in [*(kind for kind in REWARD_TYPES if kind in kinds), *sorted(kinds - set(REWARD_TYPES))]:
        by_source: dict[str, set[str]] = {}
        for result in results:
            if result.reward_type == kind:
                by_source.setdefault(result.source, set()).add(result.prompt_id)
        queues = [sorted(ids, key=_digest) for _, ids in sorted(by_source.items())]
        in_turn = [queue[turn] for turn in range(per_type) for queue in queues if turn < len(queue)]
        chosen.extend(in_turn[:per_type])
    return chosen


def pair_samples(
    before: Sequence[EvalResult], after: Sequence[EvalResult] | None, pictures: Path
) -> list[Sample]:
    """The chosen prompts with their first answers before and after, in greedy mode where there is one."""
    mode = "greedy" if any(result.mode == "greedy" for result in before) else "sampled"
    first, last = _by_prompt(before, mode), _by_prompt(after or (), mode)
    samples = []
    for prompt_id in choose_samples(list(first.values())):
        earlier, later = first[prompt_id], last.get(prompt_id)
        samples.append(
            Sample(earlier, earlier, later, load_picture(pictures, prompt_id), _boxes(earlier, later))
        )
    return samples


def save_pictures(folder: Path, pictures: Mapping[str, bytes]) -> None:
    """Keeps encoded pictures by prompt id, so that the report can be made again without the data."""
    for prompt_id, content in pictures.items():
        atomic.write_bytes(folder / _file_name(prompt_id), _as_small_png(content))


def load_picture(folder: Path, prompt_id: str) -> str | None:
    """A kept picture as a data URI; None where there is none."""
    path = folder / _file_name(prompt_id)
    if not path.is_file():
        return None
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def mark_up(response: str) -> str:
    """A response as HTML: escaped, its tags set apart, the last complete answer emphasised."""
    answers = list(_ANSWER.finditer(response))
    if answers:
        start, end = answers[-1].span(1)
        parts = [response[:start], response[start:end], response[end:]]
    else:
        parts = [response, "", ""]
    head, answer, tail = (_tags(escape(part)) for part in parts)
    return head + (f"<strong>{answer}</strong>" if answer else "") + tail


def find_box(text: str) -> Box | None:
    """The first bracketed x1, y1, x2, y2 of a text; None without one or with its corners out of order."""
    found = _BOX.search(text)
    if found is None:
        return None
    left, top, right, bottom = map(float, found.groups())
    return (left, top, right, bottom) if left < right and top < bottom else None


def _boxes(before: EvalResult, after: EvalResult | None) -> tuple[DrawnBox, ...]:
    if before.reward_type != "iou" or before.image_size is None:
        return ()
    drawn = [_drawn("gold", find_box(before.answer), before.image_size)]
    for kind, result in (("before", before), ("after", after)):
        answers = _ANSWER.findall(result.response) if result is not None else []
        if answers and result.box_frame is not None:
            drawn.append(_drawn(kind, find_box(answers[-1]), result.box_frame))
    return tuple(box for box in drawn if box is not None)


def _drawn(kind: str, box: Box | None, frame: tuple[float, float]) -> DrawnBox | None:
    if box is None:
        return None
    left, right = (min(max(value / frame[0], 0.0), 1.0) for value in (box[0], box[2]))
    top, bottom = (min(max(value / frame[1], 0.0), 1.0) for value in (box[1], box[3]))
    return DrawnBox(kind, left, top, right - left, bottom - top) if math.isfinite(right - left) else None


def _by_prompt(results: Sequence[EvalResult], mode: str) -> dict[str, EvalResult]:
    chosen: dict[str, EvalResult] = {}
    for result in results:
        if result.mode == mode:
            chosen.setdefault(result.prompt_id, result)
    return chosen


def _tags(escaped: str) -> str:
    return re.sub(r"(&lt;/?(?:think|answer)&gt;)", r'<span class="tag">\1</span>', escaped)


def _as_small_png(content: bytes) -> bytes:
    from PIL import Image

    with Image.open(io.BytesIO(content)) as picture:
        if picture.format == "PNG" and max(picture.size) <= LONGEST_SIDE:
            return content
        small = picture.convert("RGB")
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    encoded = io.BytesIO()
    small.save(encoded, "PNG", optimize=True)
    return encoded.getvalue()


def _file_name(prompt_id: str) -> str:
    """A readable name that no other prompt id can have and no path can be hidden in."""
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', prompt_id)[:80]}-{_digest(prompt_id)[:8]}.png"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
