"""From datasets as they are published to a trained policy: convert, check, select, mix and train, each its own process."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from public_datasets import Planted, by_source, make_datasets
from real_runs import ROOT, START_S, TINY, end_marked_processes, run_environment

from mixed_r1_ray.data.synthetic import build_quickstart_data

pytestmark = pytest.mark.slow
TYPES = ("matching", "chart", "iou", "open_ended")
SAMPLES, TIMEOUT_S = 2, 2 * START_S
# Bands so wide that a model which has hardly learned anything leaves records of every source.
BANDS = {"matching": (0, 1), "chart": (0, 1), "iou": (0, 0.95), "open_ended": (0.05, 1)}
DOCS = (ROOT / "docs/data.md").read_text(encoding="utf-8").partition("## From files to training")[2]
(RECIPE,) = re.findall(r"```yaml\n(name: full-pass.*?)```", DOCS, re.DOTALL)
COMMANDS = [  # as the page has them
    shlex.split(line.replace("$D", "mixed_r1_ray.data").replace("python -m", "").replace("\\\n", " "))
    for line in re.findall(r"^    ((?:\$D|python -m mixed_r1_ray\.main) (?:.*\\\n)*.*)$", DOCS, re.MULTILINE)
]
TRAINED = {"figureqa": 4, "aokvqa": 4, "scans": 4, "chartqa_human": 9, "chartqa_augmented": 3}
TRAINED |= {"refcoco": 8, "coco_captions": 8}  # of 40, by the quotas; what a type or source does not say is shared


@dataclass
class Pass:
    """The folders of one whole pass, what each command printed (NAME.log), and how long it took."""

    folder: Path
    planted: Planted
    seconds: dict[str, float] = field(default_factory=dict)

    def command(self, name: str, *words: str) -> None:
        """Runs it to a good end."""
        mark, began = uuid.uuid4().hex, time.monotonic()
        try:
            done = subprocess.run(
                [sys.executable, "-m", *words],
                cwd=self.folder,
                env=run_environment(mark),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=TIMEOUT_S,
            )
        finally:
            end_marked_processes(mark)
        assert done.returncode == 0, f"{name}: exit code {done.returncode}\n{done.stdout[-6000:]}"
        self.seconds[name] = time.monotonic() - began
        (self.folder / f"{name}.log").write_text(done.stdout)

    def printed(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def rows(self, folder: str) -> list[dict]:
        """The records of a folder of shards."""
        files = sorted((self.folder / folder).glob("*.parquet"))
        return [row for file in files for row in pq.read_table(file).to_pylist()]

    def ledger(self, folder: str) -> list[dict]:
        return [json.loads(line) for line in (self.folder / folder / "dropped.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(cache, tmp_path_factory) -> Pass:
    train, held_out = build_quickstart_data(cache, train_per_type=64, eval_per_type=8)
    folder = tmp_path_factory.mktemp("pass")
    made = Pass(folder, make_datasets(folder, by_source(train), by_source(held_out)))
    shutil.copy(held_out, folder / "eval.parquet")
    (folder / "recipe.yaml").write_text(RECIPE)
    tiny = [word for word in TINY if word.startswith(("tiny.", "rollout.max_new_tokens"))] + [f"tiny.cache_dir={cache}"]
    bands = [f"difficulty.bands.{kind}.mean=[{least},{most}]" for kind, (least, most) in BANDS.items()]
    bands += [f"difficulty.bands.{kind}.min_std=0" for kind in ("iou", "open_ended")]
    smaller = {
        "convert": ["--num-cpus", "2"],
        "check": ["--num-cpus", "2", *tiny],
        "select": ["--num-cpus", "2", "cluster.num_cpus=2", f"difficulty.samples={SAMPLES}", *bands, *tiny],
        "mix": [],
        "conf=quickstart": [*TINY, f"tiny.cache_dir={cache}", f"data.cache_dir={cache}", "data.mixing=by_type"],
    }
    for words in COMMANDS:
        made.command(words[2] if words[1] == "convert" else words[1], *words, *smaller[words[1]])
    assert list(made.seconds)[6:] == ["check", "select", "mix", "conf=quickstart"]
    print("seconds:", {name: round(seconds, 1) for name, seconds in made.seconds.items()})
    return made


def test_convert_names_what_it_left_out_by_file_and_row(whole):
    for source, reasons in whole.planted.skipped.items():
        printed = whole.printed(source)
        count = sum(map(len, reasons.values()))
        assert f"rows of {source} left out: {count}\n" in printed
        for reason, places in reasons.items():
            (line,) = re.findall(rf"^ +{len(places)}  {re.escape(reason)}: (.*)$", printed, re.MULTILINE)
            assert len(line.split("; ")) == len(places)
            assert all(place in line for place in places), line


def test_check_drops_the_planted_faults_and_nothing_else(whole):
    found = {line["id"]: line["field"] for line in whole.ledger("clean")}
    assert found == whole.planted.faults
    for line in whole.ledger("clean"):
        place = pq.read_table(whole.folder / "records" / line["file"], columns=["id"])
        assert place["id"][line["row"]].as_py() == line["id"]
        assert f"{line['file']}, row {line['row']} ({line['id']}): {line['reason']}" in whole.printed("check")
    assert len(whole.rows("clean")) == len(whole.rows("records")) - len(found)


def test_select_drops_each_copy_once_and_all_evaluation_data(whole):
    ledger, kept = whole.ledger("selected"), {row["id"] for row in whole.rows("selected")}
    copies = [line for line in ledger if "duplicate" in line["stage"]]
    assert Counter((frozenset({line["id"], line["resembles"]}), line["stage"]) for line in copies) == Counter(
        whole.planted.copies.items()
    )
    contaminated = [line for line in ledger if line["stage"] == "contaminated"]
    assert {line["id"] for line in contaminated} == whole.planted.held_out
    assert {line["of"] for line in contaminated} == {"heldout"}
    dropped = Counter(line["id"] for line in ledger)
    assert set(dropped.values()) == {1} and not dropped.keys() & kept
    assert dropped.keys() | kept == {row["id"] for row in whole.rows("clean")}


def test_pass_rates_are_the_mean_of_the_answers_and_lie_in_the_band(whole):
    answers = {row["id"]: row["rewards"] for row in whole.rows("selected/work/answers")}
    for row in whole.rows("selected"):
        meta, (least, most) = json.loads(row["meta"]), BANDS[row["reward_type"]]
        assert meta["pass_rate_samples"] == len(answers[row["id"]]) == SAMPLES
        assert meta["pass_rate"] == pytest.approx(sum(answers[row["id"]]) / SAMPLES, abs=1e-6)
        assert least <= meta["pass_rate"] <= most
    outside = [line for line in whole.ledger("selected") if line["stage"] in ("too hard", "too easy")]
    assert outside
    for line in outside:
        rate, (least, most) = sum(answers[line["id"]]) / SAMPLES, BANDS[line["reward_type"]]
        assert rate < least if line["stage"] == "too hard" else rate > most
    assert any(0 < json.loads(row["meta"])["pass_rate"] < 1 for row in whole.rows("selected"))


def test_the_mixture_has_what_the_recipe_says_and_its_splits_share_no_picture(whole):
    train, held_out = whole.rows("mix/train"), whole.rows("mix/held_out")
    assert Counter(row["source"] for row in train) == TRAINED
    assert len(held_out) == yaml.safe_load(RECIPE)["held_out"]
    assert {row["reward_type"] for row in held_out} == set(TYPES)
    pictures, others = (
        {hashlib.sha256(image["bytes"]).digest() for row in rows for image in row["images"]}
        for rows in (train, held_out)
    )
    assert pictures and others and not pictures & others
    selected = {row["id"]: row for row in whole.rows("selected")}
    assert all(row == selected[row["id"]] for row in (*train, *held_out))


def test_training_on_the_mixture_measures_all_four_types(whole):
    (file,) = (whole.folder / "runs").glob("*/metrics.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    steps = [line for line in lines if "reward/mean" in line]
    assert [line["step"] for line in steps] == [1, 2]
    assert all(f"reward/{kind}" in line for line in steps for kind in TYPES)
    assert all(line["data/bad_rows"] == 0 for line in steps)
    evaluated = next(line for line in lines if "eval/greedy/matching" in line)
    assert all(f"eval/greedy/{kind}" in evaluated for kind in TYPES)
