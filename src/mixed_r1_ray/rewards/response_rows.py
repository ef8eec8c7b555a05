"""What a row of a file of responses says: the samples to score, or what is wrong with it, named by column."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.rewards.options import nearest
from mixed_r1_ray.rewards.sample import RewardSample
from mixed_r1_ray.types import REWARD_TYPES, BoxFrame

REQUIRED = ("reward_type", "answer")
OPTIONAL = (
    "id",
    "prompt_id",
    "step",
    "sample_index",
    "source",
    "question",
    "choices",
    "image_sizes",
    "image_size",
    "box_frame",
    "reward_total",
)  # what is read of a row beside REQUIRED and the responses


class RowFault(ValueError):
    """A row that cannot be scored: `column: reason`."""

    def __init__(self, column: str, reason: str):
        super().__init__(f"{column}: {reason}")


@dataclass(frozen=True, slots=True)
class ResponseRow:
    """One row: a sample a response. Rows that follow one another with the same `group` are one group."""

    group: tuple
    samples: tuple[RewardSample, ...]
    is_list: bool  # whether the responses were a list
    logged_totals: tuple[float | None, ...] | None  # `reward_total`, where the row carries it


def check_columns(file: str, columns: Collection[str], responses: str) -> None:
    """Raises UserError, naming the nearest column, where one that scoring needs is missing."""
    if responses not in columns:
        raise UserError(
            f"{file}: has no column {responses!r} of responses{nearest(responses, columns)} "
            "(--responses COLUMN)"
        )
    for name in REQUIRED:
        if name not in columns:
            raise UserError(f"{file}: has no column {name!r}{nearest(name, columns)}")


def read_row(
    values: Mapping[str, Any],
    number: int,
    responses: str,
    box_frame: BoxFrame | None | Literal["own"] = "own",
) -> ResponseRow:
    """The row's samples. box_frame: what boxes are said in; `own`: what the row says. Raises RowFault."""
    texts, is_list = _responses(values.get(responses), responses)
    prompt_id = next((values[name] for name in ("prompt_id", "id") if values.get(name) is not None), None)
    shared = {
        "reward_type": _reward_type(values.get("reward_type")),
        "gold": _text(values.get("answer"), "answer"),
        "question": values.get("question"),
        "choices": _choices(values.get("choices")),
        "image_size": _image_size(values),
        "box_frame": _own_frame(values.get("box_frame")) if box_frame == "own" else box_frame,
        "prompt_id": str(number if prompt_id is None else prompt_id),
        "source": str(values.get("source") or ""),
    }
    first = values.get("sample_index") or 0
    samples = tuple(
        RewardSample(response=text, sample_index=first + place, **shared) for place, text in enumerate(texts)
    )
    return ResponseRow(
        group=(number,) if prompt_id is None else (values.get("step"), prompt_id),
        samples=samples,
        is_list=is_list,
        logged_totals=_logged_totals(values, len(samples)),
    )


def _logged_totals(values: Mapping[str, Any], num_samples: int) -> tuple[float | None, ...] | None:
    if "reward_total" not in values:
        return None
    totals = values["reward_total"]
    totals = tuple(totals) if isinstance(totals, list) else (totals,)
    return totals if len(totals) == num_samples else None


def _responses(value: Any, column: str) -> tuple[list[str], bool]:
    if isinstance(value, list):
        if not value:
            raise RowFault(column, "is an empty list")
        return [_text(text, f"{column}[{place}]") for place, text in enumerate(value)], True
    return [_text(value, column)], False


def _text(value: Any, column: str) -> str:
    if not isinstance(value, str):
        raise RowFault(column, "is missing or null" if value is None else f"is {value!r:.40}, not a text")
    return value


def _reward_type(value: Any) -> str:
    if value not in REWARD_TYPES:
        raise RowFault("reward_type", f"{value!r:.40} is none of {', '.join(REWARD_TYPES)}")
    return value


def _choices(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise RowFault("choices", f"is {value!r:.40}, not a list of texts")
    return tuple(_text(choice, f"choices[{place}]") for place, choice in enumerate(value))


def _image_size(values: Mapping[str, Any]) -> tuple[int, int] | None:
    """`image_size` as [width, height], or the first of `image_sizes` as the record schema has it."""
    column = "image_size" if values.get("image_size") is not None else "image_sizes"
    size = values.get(column)
    if column == "image_sizes" and isinstance(size, list):
        size = size[0] if size else None
    return None if size is None else _pair(size, column)


def _own_frame(value: Any) -> BoxFrame | None:
    return None if value is None else BoxFrame(*_pair(value, "box_frame"))


def _pair(value: Any, column: str) -> tuple[float, float]:
    pair = (value.get("width"), value.get("height")) if isinstance(value, Mapping) else value
    try:
        width, height = pair
        if width > 0 and height > 0:
            return width, height
    except (TypeError, ValueError):
        pass
    raise RowFault(column, f"is {value!r:.60}, not a width and a height in pixels")
