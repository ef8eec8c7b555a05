"""What config.py declares, read back: every key with its type, bounds, default and documentation."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from difflib import SequenceMatcher
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from . import config
from .config import Config
from .config_types import Bounds


@dataclass(frozen=True)
class Field:
    """One key of the schema."""

    key: str  # section.name
    type: Any  # as annotated: Annotated, Literal, Optional or plain
    default: Any
    doc: str

    def describe(self) -> str:
        """What may be given: `int >= 1 or null`, `one of never, auto, overwrite`."""
        return describe_type(self.type)

    def out_of_bounds(self, value: Any) -> bool:
        """Whether a value of the right type breaks the bounds annotated on that type."""
        return any(
            bounds is not None and not bounds.allow(number) for bounds, number in _bounded(self.type, value)
        )


@cache
def schema() -> dict[str, Field]:
    """Every key of the configuration, in the order of its declaration."""
    docs = _docs()
    return {
        f"{section}.{field.name}": Field(
            key=f"{section}.{field.name}",
            type=hints[field.name],
            default=field.default if field.default is not MISSING else field.default_factory(),
            doc=docs[section_class.__name__, field.name],
        )
        for section, section_class in get_type_hints(Config).items()
        for hints in [get_type_hints(section_class, include_extras=True)]
        for field in fields(section_class)
    }


def sections() -> tuple[str, ...]:
    """Names of the top-level sections."""
    return tuple(field.name for field in fields(Config))


def help_text() -> str:
    """All keys, one a paragraph: `key: type = default`, then its documentation."""
    lines = [
        "python -m mixed_r1_ray.main conf=NAME [key=value ...]",
        "  conf=NAME        a name in conf/ or a path to a YAML file",
        "  help=true        this text",
        "  rewards.KEY      the same as reward.KEY",
        "  dry_run=true     print the resolved configuration, the plan and what speaks against it; start nothing",
    ]
    for field in schema().values():
        default = "null" if field.default is None else str(field.default)
        lines += ["", f"{field.key}: {field.describe()} = {default}"]
        lines += textwrap.wrap(field.doc, width=100, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def nearest_keys(unknown: str) -> list[str]:
    """Up to three valid keys that resemble `unknown`; none when nothing does."""
    scores = {key: _likeness(unknown, key) for key in schema()}
    best = max(scores.values())
    near = [key for key in scores if scores[key] >= max(0.75, best - 0.02)]
    return sorted(near, key=lambda key: -scores[key])[:3]


def describe_type(annotation: Any) -> str:
    """An annotation in words a user can act on."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return f"{args[0].__name__} {args[1]}"
    if origin is Literal:
        return args[0] if len(args) == 1 else f"one of {', '.join(args)}"
    if origin in (Union, UnionType):
        members = [describe_type(member) for member in args if member is not NoneType]
        return " or ".join(members + ["null"] * (NoneType in args))
    if origin is tuple:
        return f"list of {len(args)} ({describe_type(args[0])})"
    if origin is dict:
        return f"name: {describe_type(args[1])}, ..."
    if origin is list:
        return f"list of {describe_type(args[0])}"
    return annotation.__name__


def _likeness(unknown: str, key: str) -> float:
    """0 to 1. Section and name count the same, but the right name in the wrong section or in none is near."""
    section, _, name = unknown.rpartition(".")
    key_section, _, key_name = key.partition(".")
    same_section, same_name = (
        SequenceMatcher(None, *pair, autojunk=False).ratio()
        for pair in ((section, key_section), (name, key_name))
    )
    return max((same_section + same_name) / 2, 0.9 * same_name if same_name == 1 or not section else 0)


def _bounded(annotation: Any, value: Any) -> Iterator[tuple[Bounds | None, Any]]:
    """The numbers inside `value`, each with the bounds its annotation carries."""
    origin, args = get_origin(annotation), get_args(annotation)
    if value is None:
        return
    if origin is Annotated:
        yield args[1], value
    elif origin in (Union, UnionType):
        for member in args:
            yield from _bounded(member, value)
    elif origin is dict:
        for element in value.values():
            yield from _bounded(args[1], element)
    elif origin is tuple:
        for member, element in zip(args, value, strict=True):
            yield from _bounded(member, element)


def _docs() -> dict[tuple[str, str], str]:
    """(class, field) -> the `#:` comment above it; one above two fields in a row speaks for both."""
    source = inspect.getsource(config)
    lines = source.splitlines()
    docs = {}
    for section in ast.parse(source).body:
        if not isinstance(section, ast.ClassDef):
            continue
        doc: list[str] = []
        previous_end = section.lineno
        for statement in section.body:
            if not isinstance(statement, ast.AnnAssign):
                continue
            comments = [line.strip() for line in lines[previous_end : statement.lineno - 1]]
            doc = [line.removeprefix("#:").strip() for line in comments if line.startswith("#:")] or doc
            docs[section.name, statement.target.id] = " ".join(doc)
            previous_end = statement.end_lineno
    return docs
