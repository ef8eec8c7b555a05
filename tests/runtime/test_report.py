from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from mixed_r1_ray.config import Config
from mixed_r1_ray.runtime.evaluation_table import EvalResult, save_results, summarise
from mixed_r1_ray.runtime.metrics import MetricsLog
from mixed_r1_ray.runtime.report import headline, main, write_report
from mixed_r1_ray.runtime.run_dir import open_run_dir
from mixed_r1_ray.runtime.warning_log import WarningLog

TYPES = ("matching", "chart", "iou", "open_ended")
HOSTILE = "<answer></pre><script>alert(1)</script><img src=x onerror=alert(2)></answer>"


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), "navy").save(buffer, "PNG")
    return buffer.getvalue()


def results(task: float) -> list[EvalResult]:
    return [
        EvalResult(
            f"{kind}-{i}",
            kind,
            f"source_{kind}",
            mode,
            task + 0.5,
            task + 0.01 * (i % 2),
            1.0,
            HOSTILE,
            question="Which one <b>is</b> it?",
            answer="[1, 2, 30, 18]",
            image_size=(40, 20),
            box_frame=(1000.0, 1000.0),
        )
        for kind in TYPES
        for i in range(5)
        for mode in ("greedy", "sampled")
    ]


def fabricate(folder: Path, steps: int = 12, evaluations: tuple[int, ...] = (0, 12)) -> Path:
    config = Config()
    config = replace(
        config, run=replace(config.run, dir=str(folder), name="<i>run</i>".replace("/", "-"), max_steps=12)
    )
    with open_run_dir(config) as run_dir:
        WarningLog(run_dir.warnings_file).add("row <script> of data/train.parquet", 3)
        log = MetricsLog(run_dir.metrics_file)
        for step in range(steps + 1):
            if step:
                rewards = {f"reward/{kind}": 0.1 * step / 12 for kind in TYPES}
                log.append(
                    step,
                    rewards
                    | {
                        "reward/mean": 0.5,
                        "reward/format": 1.0,
                        "entropy": None,
                        "kl/reference": 1e-3 * step,
                        "time/step_s": 2.0,
                        "time/generate_s": 1.5,
                        "time/learn_s": 0.5,
                    },
                )
            if step in evaluations:
                save_results(run_dir.evals, step, results(0.25 + step / 48))
                log.append(step, summarise(results(0.25 + step / 48)))
        return run_dir.path


class Page(HTMLParser):
    """What a browser would see: tags with attributes, and text outside of them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br", "path", "line", "circle", "rect", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()
        elif tag not in ("path", "line", "circle", "rect"):
            pytest.fail(f"</{tag}> closes {self.open[-1:]}")

    def handle_data(self, data):
        self.text += data if not self.open or self.open[-1] != "style" else ""

    def count(self, tag: str, css: str) -> int:
        return sum(
            name == tag and css in (attributes.get("class") or "").split() for name, attributes in self.tags
        )


@pytest.fixture
def page(tmp_path) -> Page:
    run = fabricate(tmp_path)
    return Page(write_report(run, {f"{kind}-{i}": picture() for kind in TYPES for i in range(5)}))


def test_page_is_well_formed_and_fetches_nothing(page):
    assert page.open == []
    names = [name for name, _ in page.tags]
    assert not {"script", "link", "iframe", "object"} & set(names)
    sources = [attributes[key] for _, attributes in page.tags for key in ("src", "href") if key in attributes]
    assert sources and all(source.startswith("data:image/png;base64,") for source in sources)
    policy = next(attributes["content"] for _, attributes in page.tags if attributes.get("http-equiv"))
    assert policy.startswith("default-src 'none'")


def test_what_a_model_or_a_file_says_is_text_not_markup(page):
    assert "<script>alert(1)</script>" in page.text and "Which one <b>is</b> it?" in page.text
    assert "row <script> of data/train.parquet" in page.text and "<i>run<-i>" in page.text
    assert not any("onerror" in attributes for _, attributes in page.tags)


def test_a_dozen_samples_are_shown_with_picture_boxes_and_both_answers(page):
    assert page.count("article", "sample") == 12
    assert sum(name == "img" for name, _ in page.tags) == 12
    assert page.count("rect", "b-gold") == 3
    assert page.count("div", "answer") == 24


def test_verdict_tells_the_paired_difference_of_every_type_and_mode(page):
    assert page.text.count("+0.250") == 8  # 12 / 48
    assert "Sampled: 4 of 4 types rose (matching, chart, grounding, open-ended), none fell" in page.text


def test_every_metric_that_was_logged_has_its_curve_and_others_have_none(page):
    titles = re.findall(r"[A-Z][a-z -]+", page.text)
    assert "KL to the reference" in page.text and "Gradient norm" not in titles and "Entropy" not in titles


def test_types_that_the_run_did_not_train_are_not_mentioned(page):
    assert "Grounding" in page.text
    assert "Mathematics" not in page.text and "Counting" not in page.text


def test_it_can_be_made_again_from_the_folder_alone(tmp_path, capsys):
    run = fabricate(tmp_path)
    first = write_report(run, {f"{kind}-{i}": picture() for kind in TYPES for i in range(5)}).read_text()
    (run / "report.html").unlink()
    assert main([str(run)]) == 0
    assert (run / "report.html").read_text() == first
    assert capsys.readouterr().out.strip() == str(run / "report.html")


@pytest.mark.parametrize(
    ("steps", "evaluations", "says"),
    [
        (0, (), "has not been evaluated"),
        (0, (0,), "One evaluation so far, at step 0"),
        (1, (0,), "One evaluation so far"),
        (12, (), "has not been evaluated"),
    ],
)
def test_an_unfinished_run_has_a_report_too(tmp_path, steps, evaluations, says):
    page = Page(write_report(fabricate(tmp_path, steps, evaluations)))
    assert says in page.text and page.open == []


def test_command_refuses_a_folder_without_a_run(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "runs/NAME" in capsys.readouterr().err


def test_headline_names_what_fell():
    from mixed_r1_ray.runtime.evaluation_table import compare

    rows = compare(
        [r for r in results(0.5) if r.mode == "greedy"], [r for r in results(0.25) if r.mode == "greedy"]
    )
    assert headline(rows) == [
        "Greedy: 0 of 4 types rose, 4 fell (matching, chart, grounding, open-ended) by more than "
        "two standard errors."
    ]
