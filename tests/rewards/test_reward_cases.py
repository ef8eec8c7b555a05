"""Every line of tests/data/reward_cases.txt."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mixed_r1_ray.rewards import score
from mixed_r1_ray.types import BoxFrame

TABLE = Path(__file__).parents[1] / "data" / "reward_cases.txt"
OPTION_NAMES = {
    ("chart", "mode"): "chart_mode",
    ("chart", "ordered"): "chart_ordered",
    ("iou", "mode"): "iou_mode",
    ("iou", "threshold"): "iou_threshold",
    ("counting", "mode"): "counting_mode",
}


def read_settings(text: str) -> dict[str, str]:
    """`a=b c=d e` → {a: b, c: `d e`}."""
    keys = list(re.finditer(r"(?:^|\s)(\w+)=", text))
    ends = [key.start() for key in keys[1:]] + [len(text)]
    return {key[1]: text[key.end() : end].strip() for key, end in zip(keys, ends)}


def read_cases():
    shared: dict[str, str] = {}
    for number, line in enumerate(TABLE.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("@"):
            shared = read_settings(line[1:])
        elif line and not line.startswith("#"):
            head, response, gold, expected, why = (part.strip() for part in line.split("¦"))
            reward_type, _, own = head.partition(" ")
            case = (reward_type, response, gold, float(expected), shared | read_settings(own))
            yield pytest.param(*case, id=f"line {number}: {why}")


def keywords(reward_type: str, settings: dict[str, str]) -> dict:
    def size(text: str) -> tuple[int, ...]:
        return tuple(int(side) for side in text.split("x"))

    readers = {
        "choices": lambda text: tuple(text.split("/")),
        "image_size": size,
        "box_frame": lambda text: BoxFrame(*map(float, size(text))),
        "iou_threshold": float,
        "progress": float,
        "chart_ordered": lambda text: text == "1",
    }
    names = {"size": "image_size", "frame": "box_frame"}
    found = {
        OPTION_NAMES.get((reward_type, key), names.get(key, key)): value for key, value in settings.items()
    }
    return {key: readers.get(key, str)(value) for key, value in found.items()}


def whole_response(response: str) -> str:
    text = response.replace("∅", "").replace(r"\n", "\n")
    return (
        text
        if "<answer>" in text.lower() or "<think>" in text
        else f"<think>so</think><answer>{text}</answer>"
    )


@pytest.mark.parametrize(("reward_type", "response", "gold", "expected", "settings"), list(read_cases()))
def test_case(reward_type, response, gold, expected, settings):
    breakdown = score(reward_type, whole_response(response), gold, **keywords(reward_type, settings))
    assert breakdown.task == pytest.approx(expected, abs=1e-6), breakdown.detail


def test_the_table_is_not_read_short():
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    written = sum(line.split(" ")[0] in ("matching", "chart", "iou", "counting", "math") for line in lines)
    assert len(list(read_cases())) == written >= 400
