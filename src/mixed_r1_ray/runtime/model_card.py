"""The model card of an exported checkpoint: README.md, made from the run's own files alone."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mixed_r1_ray.config_fields import schema
from mixed_r1_ray.runtime.evaluation_table import (
    EvalResult,
    PairedDifference,
    compare,
    evaluated_steps,
    load_results,
    summarise,
)
from mixed_r1_ray.runtime.markdown import cell, yaml_text
from mixed_r1_ray.runtime.metrics import read_metrics
from mixed_r1_ray.runtime.report_cards import TYPE_LABELS, TYPE_NOTES
from mixed_r1_ray.runtime.run_config import read_config
from mixed_r1_ray.runtime.run_dir import RunFiles

TEMPLATE = Path(__file__).with_name("model_card.md.j2")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
#: What makes the recipe, shown whatever its value; of the other sections only what differs from the defaults.
RECIPE = (
    "algo.loss",
    "algo.advantage_estimator",
    "algo.beta",
    "rollout.prompts_per_step",
    "rollout.group_size",
    "rollout.temperature",
    "rollout.max_new_tokens",
    "learner.learning_rate",
    "learner.freeze",
    "model.dtype",
    "run.seed",
)
RECIPE_SECTIONS = ("model", "tiny", "data", "rollout", "reward", "learner", "algo")
#: Keys of those sections that are about machines, or told elsewhere in the card.
NOT_RECIPE = re.compile(
    r".*(timeout_s|num_workers|_per_worker|threads|kv_cache_gib|gpu_memory_fraction|cache_dir)"
    r"|model\.path|data\.(train|eval|system|template)"
)


def model_card(run: RunFiles, step: int, dtype: str) -> str:
    """The card of the weights after `step` in Markdown, its head as the hub reads it."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=False,  # Markdown: `cell` makes texts harmless
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cell": cell, "yaml_text": yaml_text, "signed": "{:+.3f}".format, "fixed": "{:.3f}".format}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(_contents(run, step, dtype))


def _contents(run: RunFiles, step: int, dtype: str) -> dict[str, Any]:
    config, environment = read_config(run.config_file)
    steps = [line for line in read_metrics(run.metrics_file) if "reward/mean" in line and line["step"] <= step]
    base = str(config["model"]["path"])
    evaluated = max((known for known in evaluated_steps(run.evals) if known <= step), default=None)
    after = load_results(run.evals, evaluated) if evaluated is not None else None
    before = load_results(run.evals, 0) if evaluated else None
    return {
        "name": config["run"]["name"],
        "step": step,
        "dtype": dtype,
        "base": base,
        "loss": config["algo"]["loss"],
        "asked": {"system": config["data"]["system"], "template": config["data"]["template"]},
        "hub_base": base if HUB_NAME.fullmatch(base) and not Path(base).exists() else None,
        "recipe": _recipe(config),
        "data": config["data"],
        "sources": _names(steps, "reward/source/"),
        "types": [kind for kind in TYPE_LABELS if any(f"reward/{kind}" in line for line in steps)],
        "labels": TYPE_LABELS,
        "notes": TYPE_NOTES,
        "reward": config["reward"],
        "evaluated": evaluated,
        "held_out": _held_out(before, after),
        "packages": environment.get("packages", {}),
        "revision": environment.get("git_revision", "unknown"),
        "started": environment.get("started", "unknown"),
    }


@dataclasses.dataclass(frozen=True, slots=True)
class HeldOutRow:
    """One type and mode; standard errors are None for a single prompt."""

    change: PairedDifference
    before_error: float | None
    after_error: float | None


def _held_out(before: Sequence[EvalResult] | None, after: Sequence[EvalResult] | None) -> list[HeldOutRow]:
    if not before or not after:
        return []
    first, last = summarise(before), summarise(after)
    rows = []
    for change in compare(before, after):
        name = f"eval/{change.mode}/{change.reward_type}/se"
        rows.append(HeldOutRow(change, first.get(name), last.get(name)))
    return rows


def _recipe(config: dict[str, Any]) -> list[tuple[str, Any]]:
    fields = schema()
    flat = {f"{section}.{name}": value for section, keys in config.items() for name, value in keys.items()}
    changed = [
        key
        for key, value in flat.items()
        if key in fields
        and key.partition(".")[0] in RECIPE_SECTIONS
        and not NOT_RECIPE.fullmatch(key)
        and value != (list(fields[key].default) if isinstance(fields[key].default, tuple) else fields[key].default)
    ]
    if not str(config["model"]["path"]).startswith("tiny:"):
        changed = [key for key in changed if not key.startswith("tiny.")]
    shown = [key for key in RECIPE if key in flat] + [key for key in changed if key not in RECIPE]
    return [(key, flat[key]) for key in shown]


def _names(lines: Sequence[dict], prefix: str) -> list[str]:
    return sorted({name.removeprefix(prefix) for line in lines for name in line if name.startswith(prefix)})
