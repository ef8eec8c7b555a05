"""The IoU reward: boxes that a response names against the gold's, in original pixels."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass

import numpy as np

from mixed_r1_ray.rewards.parse import GoldError, TaskScore, normalise
from mixed_r1_ray.types import BoxFrame

IOU_MODES = ("continuous", "threshold", "dynamic")
MAX_BOXES = 1000  # an answer that names more, or is longer than they need, scores 0 (choice)
_MAX_LENGTH = 64 * MAX_BOXES  # characters
_MAX_COORDINATE = 1e7
_BOX_KEYS = ("bbox_2d", "bbox", "box", "box_2d")
_LABEL_KEYS = ("label", "name", "category")
# V-Triune's schedule: (share of training up to which it holds, threshold).
_SCHEDULE = ((0.10, 0.85), (0.25, 0.95), (math.inf, 0.99))

Coordinates = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Box:
    """x1, y1, x2, y2 (None: was written as a box but is none) and what the response says it holds."""

    coordinates: Coordinates | None
    label: str | None = None


def parse_gold(gold: str, image_size: tuple[int, int] | None = None) -> tuple[Box, ...]:
    """The gold boxes, JSON in original pixels. Raises GoldError, also for a box outside the image."""
    try:
        boxes = _boxes_in_json(json.loads(gold, parse_int=float))
    except (ValueError, RecursionError) as error:
        raise GoldError(f"gold {gold[:80]!r} is not JSON: {error}") from None
    if not boxes or any(box.coordinates is None for box in boxes):
        raise GoldError(
            f"gold {gold[:80]!r} is no box [x1, y1, x2, y2] with x1 < x2 and y1 < y2, nor a list of them"
        )
    if image_size is not None:
        width, height = image_size
        for box in boxes:
            x1, y1, x2, y2 = box.coordinates
            if min(x1, y1) < -1 or x2 > width + 1 or y2 > height + 1:  # rounding may cost a pixel
                raise GoldError(f"gold box {[x1, y1, x2, y2]} lies outside the image, {width} x {height}")
    return tuple(boxes)


def score_answer(
    answer: str,
    gold: tuple[Box, ...],
    *,
    image_size: tuple[int, int] | None = None,
    box_frame: BoxFrame | None = None,
    mode: str = "continuous",
    threshold: float = 0.5,
    progress: float = 0.0,
) -> TaskScore:
    """Mean IoU over optimally paired boxes: sum ÷ max(number predicted, number of golds).

    box_frame: the frame the response speaks in, scaled to image_size; None: original pixels already.
    mode: `threshold` makes a pair's IoU 1 where it reaches the threshold, `dynamic` keeps it where it reaches
    one that rises with training progress; else it is 0.
    """
    boxes = parse_boxes(answer) if len(answer) <= _MAX_LENGTH else None
    if boxes == []:
        return TaskScore(0.0, f"no box in {answer[:80]!r}")
    if boxes is None or len(boxes) > MAX_BOXES:
        return TaskScore(0.0, f"more than {MAX_BOXES} boxes")
    scale = (1.0, 1.0)
    if box_frame is not None:
        scale = (image_size[0] / box_frame.width, image_size[1] / box_frame.height)
    overlaps = _pair(_overlaps(boxes, gold, scale))
    if mode == "threshold":
        values = (overlaps >= threshold).astype(float)
    elif mode == "dynamic":
        threshold = dynamic_threshold(progress)
        values = np.where(overlaps >= threshold, overlaps, 0.0)
    else:
        values = overlaps
    value = float(values.sum()) / max(len(boxes), len(gold))
    invalid = sum(box.coordinates is None for box in boxes)
    listed = ", ".join(f"{overlap:.3f}" for overlap in overlaps[:8])
    detail = f"{len(boxes)} boxes ({invalid} invalid) for {len(gold)}, IoU {listed}"
    return TaskScore(
        min(1.0, value), detail if mode == "continuous" else f"{detail}, threshold {threshold:g}"
    )


def box_iou(a: Coordinates, b: Coordinates) -> float:
    """Intersection over union of two boxes as continuous areas; 0 where either is inverted or has no area."""
    return float(_iou_matrix(np.array([a], dtype=float), np.array([b], dtype=float))[0, 0])


def dynamic_threshold(progress: float) -> float:
    """0.85 for the first tenth of training, 0.95 to a quarter, then 0.99 (V-Triune)."""
    return next(threshold for end, threshold in _SCHEDULE if progress < end)


_SQUARE, _ROUND = re.compile(r"\[([^\[\]]*)\]"), re.compile(r"\(([^()]*)\)")
_CORNERS = re.compile(r"\(([^()]{1,60})\)\s?,?\s?\(([^()]{1,60})\)")
_FLOAT = re.compile(r"[-+]?(?:[0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})(?:[eE][-+]?[0-9]{1,3})?")
_BOX_TAGS = re.compile(r"</?(?:ref|box)>|[\[\]]")


def parse_boxes(answer: str) -> list[Box]:
    """Boxes of an answer, in order: JSON, `<box>[[…]]</box>`, `(x1,y1),(x2,y2)`, or brackets among words.

    A bracket with numbers that is no box counts as an invalid one, so that junk beside a good box costs.
    """
    start = min((place for place in (answer.find("["), answer.find("{")) if place >= 0), default=len(answer))
    end = max(answer.rfind("]"), answer.rfind("}")) + 1
    try:
        return _boxes_in_json(json.loads(answer[start:end], parse_int=float))
    except (ValueError, RecursionError):
        pass
    groups = [group for group in _SQUARE.finditer(answer) if any(char.isdigit() for char in group[1])]
    if groups:
        gaps = zip([0] + [group.end() for group in groups], groups)
        labels = [_BOX_TAGS.sub("", answer[end : group.start()]).strip(" \n,;:") for end, group in gaps]
        return [Box(_coordinates(_floats(group[1])), label) for group, label in zip(groups, labels)]
    corners = [f"{first},{second}" for first, second in _CORNERS.findall(answer)]
    return [
        Box(_coordinates(_floats(group)))
        for group in corners or _ROUND.findall(answer)
        if any(map(str.isdigit, group))
    ]


def _boxes_in_json(value) -> list[Box]:
    """Boxes in a decoded value: a box, a mapping that holds one, or a list of these."""
    if isinstance(value, dict):
        label = next((value[key] for key in _LABEL_KEYS if isinstance(value.get(key), str)), None)
        inside = next((value[key] for key in _BOX_KEYS if key in value), None)
        if inside is not None:
            return [Box(box.coordinates, label) for box in _boxes_in_json(inside)]
        members = [member for member in value.values() if isinstance(member, (list, dict))]
        return [box for member in members for box in _boxes_in_json(member)] or [Box(None)]
    if not isinstance(value, list):
        return [Box(None)]
    if any(isinstance(member, (list, dict)) for member in value):
        return [box for member in value for box in _boxes_in_json(member)]
    return [Box(_coordinates(value))] if value else []


def _coordinates(values: list) -> Coordinates | None:
    if len(values) != 4 or not all(
        isinstance(value, float) and abs(value) <= _MAX_COORDINATE for value in values
    ):
        return None
    x1, y1, x2, y2 = values
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def _floats(text: str) -> list[float | None]:
    """The numbers of a comma-separated text; None for what is no number."""
    parts = text.split(",", 8)
    return [float(part) if _FLOAT.fullmatch(part) else None for part in map(str.strip, parts)]


def _overlaps(boxes: list[Box], gold: tuple[Box, ...], scale: tuple[float, float]) -> np.ndarray:
    """IoU of each prediction and gold, (n_pred, n_gold); 0 where labels tell the golds apart and differ."""
    nothing = (0.0, 0.0, 0.0, 0.0)
    predicted = np.array([box.coordinates or nothing for box in boxes]) * np.array(scale * 2)
    overlaps = _iou_matrix(predicted, np.array([box.coordinates for box in gold]))
    labels = [normalise(box.label or "") for box in gold]
    if len(set(labels)) > 1:
        said = [normalise(box.label or "") for box in boxes]
        overlaps = overlaps * np.array([[one == other for other in labels] for one in said])
    return overlaps


def _iou_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, 4) and (m, 4) corners → (n, m)."""
    a, b = a[:, None, :], b[None, :, :]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.prod(np.maximum(sides, 0.0), axis=-1)
    areas = [np.prod(np.maximum(box[..., 2:] - box[..., :2], 0.0), axis=-1) for box in (a, b)]
    union = areas[0] + areas[1] - shared
    valid = (areas[0] > 0) & (areas[1] > 0)
    return np.where(valid, shared / np.where(valid, union, 1.0), 0.0)


def _pair(overlaps: np.ndarray) -> np.ndarray:
    """IoU of each pair of the assignment that has the largest sum (Hungarian)."""
    if 1 in overlaps.shape:
        return overlaps.max(keepdims=True).ravel()
    from scipy.optimize import linear_sum_assignment

    return overlaps[linear_sum_assignment(overlaps, maximize=True)]
