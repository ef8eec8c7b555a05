"""The data card: README.md of a mixture in the hub's form, with charts and sample pictures beside it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixed_r1_ray.data.card_charts import histogram, pie
from mixed_r1_ray.data.manifest import SPLITS, Manifest
from mixed_r1_ray.data.recipe import Recipe
from mixed_r1_ray.data.record_files import InputFile, open_files, read_batches
from mixed_r1_ray.data.record_samples import ShownRecord, choose_places, load_samples
from mixed_r1_ray.data.schema import pass_rate
from mixed_r1_ray.runtime import atomic
from mixed_r1_ray.runtime.markdown import cell, link, yaml_text
from mixed_r1_ray.types import REWARD_TYPES

TEMPLATE = Path(__file__).with_name("card.md.j2")
FOLDER = "card"  # of charts and pictures
NUM_SAMPLES = 12
SAMPLE_SIDE = 320  # pixels
HUB_SPLITS = {"train": "train", "held_out": "test"}  # `datasets` knows a held-out split as test


@dataclass(slots=True)
class Statistics:
    """What the charts are drawn from, by reward type: words of questions and answers, pass rates."""

    question_words: dict[str, list[np.ndarray]] = field(default_factory=dict)
    answer_words: dict[str, list[np.ndarray]] = field(default_factory=dict)
    pass_rates: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def add(self, batch: pa.RecordBatch) -> None:
        """Counts a batch of reward_type, question, answer and meta."""
        kinds = np.array(batch.column("reward_type").to_pylist())
        rates = np.array([pass_rate(meta) for meta in batch.column("meta").to_pylist()], dtype=float)
        questions, answers = (_words(batch.column(name)) for name in ("question", "answer"))
        for kind in REWARD_TYPES:
            of_kind = kinds == kind
            if of_kind.any():
                self.question_words.setdefault(kind, []).append(questions[of_kind])
                self.answer_words.setdefault(kind, []).append(answers[of_kind])
                rated = rates[of_kind & ~np.isnan(rates)]
                if len(rated):
                    self.pass_rates.setdefault(kind, []).append(rated)


def write_card(folder: Path, recipe: Recipe, manifest: Manifest) -> Path:
    """Writes README.md and card/ of the mixture in `folder`, from its shards; returns the README's path."""
    from jinja2 import Environment, StrictUndefined

    files = open_files([folder / "train"])
    charts = _charts(_statistics(files), manifest)
    for name, chart in charts.items():
        atomic.write_text(folder / FOLDER / f"{name}.svg", chart)
    environment = Environment(
        autoescape=False,  # Markdown: `cell` and `link` make texts harmless
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cell": cell, "number": "{:,}".format, "yaml_text": yaml_text, "link": link}
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        recipe=recipe,
        manifest=manifest,
        sources={stratum: source for stratum, source in recipe.strata()},
        splits=[
            (HUB_SPLITS[split], split, manifest.count(split)) for split in SPLITS if manifest.count(split)
        ],
        size_category=_size_category(sum(manifest.count(split) for split in SPLITS)),
        charts=[(name.replace("_", " "), f"{FOLDER}/{name}.svg") for name in charts],
        types=[kind for kind in REWARD_TYPES if manifest.by_type("train")[kind]],
        samples=_samples(folder, files),
    )
    atomic.write_text(folder / "README.md", text)
    return folder / "README.md"


def _statistics(files: Sequence[InputFile]) -> Statistics:
    statistics = Statistics()
    for file in files:
        for _, batch in read_batches(file, ["reward_type", "question", "answer", "meta"], batch_rows=4096):
            statistics.add(batch)
    return statistics


def _charts(statistics: Statistics, manifest: Manifest) -> dict[str, str]:
    """SVG by file name."""
    counts = manifest.by_type("train")
    questions, answers, rates = (
        {kind: np.concatenate(parts) for kind, parts in by_type.items()}
        for by_type in (statistics.question_words, statistics.answer_words, statistics.pass_rates)
    )
    charts = {
        "reward_types": pie({kind: counts[kind] for kind in REWARD_TYPES if counts[kind]}, "Reward types"),
        "question_words": histogram(questions, "Length of questions", "words"),
        "answer_words": histogram(answers, "Length of answers", "words"),
        "pass_rates": histogram(
            rates, "Pass rate", "mean reward of the model that selected", limits=(0.0, 1.0)
        ),
    }
    return {name: chart for name, chart in charts.items() if chart}


def _samples(folder: Path, files: Sequence[InputFile]) -> list[tuple[ShownRecord, str]]:
    """Records to show, each with the name of its picture ('' without one) under card/."""
    samples = []
    for number, shown in enumerate(load_samples(files, choose_places(files, NUM_SAMPLES), SAMPLE_SIDE)):
        name = ""
        if shown.pictures and not shown.pictures[0].fault:
            name = f"{FOLDER}/sample-{number:02d}.png"
            atomic.write_bytes(folder / name, _drawn(shown))
        samples.append((shown, name))
    return samples


def _drawn(shown: ShownRecord) -> bytes:
    """The first picture as PNG with its gold boxes in green over white."""
    from PIL import Image, ImageDraw

    picture, encoded = Image.fromarray(shown.pictures[0].pixels), io.BytesIO()
    if max(picture.size) <= SAMPLE_SIDE // 2:  # else the lines of a box would cover what is in it
        picture = picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST)
    draw, (width, height) = ImageDraw.Draw(picture), picture.size
    for box in shown.boxes:
        corners = (box.x * width, box.y * height, (box.x + box.width) * width, (box.y + box.height) * height)
        for colour, thickness in (("#ffffff", 4), ("#12a150", 2)):
            draw.rectangle(corners, outline=colour, width=thickness)
    picture.save(encoded, "PNG", optimize=True)
    return encoded.getvalue()


def _words(column: pa.Array) -> np.ndarray:
    """Words of each text, separated by white space."""
    trimmed = pc.utf8_trim_whitespace(pc.fill_null(column, ""))
    return pc.list_value_length(pc.utf8_split_whitespace(trimmed)).to_numpy(zero_copy_only=False)


def _size_category(records: int) -> str:
    """As the hub names them: n<1K, 1K<n<10K, …"""
    bounds = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))
    return next((name for bound, name in bounds if records < bound), "1M<n<10M")
