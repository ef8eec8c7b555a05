"""`show`: a page without a network on which hostile records do nothing and golds stand where they belong."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from mixed_r1_ray.data.record_files import open_files
from mixed_r1_ray.data.record_samples import choose_places, load_samples
from mixed_r1_ray.data.schema import Record, write_records
from mixed_r1_ray.data.show import main, write_page
from mixed_r1_ray.errors import UserError

SCRIPT = "<script>alert(1)</script>"


def picture(width: int, height: int) -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", (width, height), "navy").save(encoded, "PNG")
    return encoded.getvalue()


def record(number: int, **changes) -> Record:
    values = {
        "id": f"r{number}",
        "source": "vsr",
        "reward_type": "matching",
        "images": (picture(80, 40),),
        "image_sizes": ((80, 40),),
        "question": f"Question {number}?",
        "answer": "yes",
    }
    return Record(**values | changes)


class Page(HTMLParser):
    """Elements of a page, by tag, with their attributes; and all of its text."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag: str, css: str | None = None) -> list[dict]:
        return [at for name, at in self.elements if name == tag and css in (None, at.get("class"))]


def page_of(tmp_path, records, **options) -> Page:
    write_records(tmp_path / "in" / "a.parquet", records)
    write_page(tmp_path / "in", tmp_path / "page.html", **options)
    return Page((tmp_path / "page.html").read_text())


def test_gold_boxes_lie_where_the_gold_says(tmp_path):
    gold = json.dumps(
        [{"bbox_2d": [8, 10, 40, 20], "label": "left"}, {"bbox_2d": [60, 30, 80, 40], "label": "right"}]
    )
    page = page_of(tmp_path, [record(0, reward_type="iou", answer=gold)])
    boxes = [[float(box[name]) for name in ("x", "y", "width", "height")] for box in page.all("rect", "gold")]
    assert boxes == [[0.1, 0.25, 0.4, 0.25], [0.75, 0.75, 0.25, 0.25]]
    assert [label["style"] for label in page.all("span", "label")] == [
        "left: 10.00%; bottom: 75.00%",  # above the box, which begins 20 pixels below the edge
        "right: 0.00%; bottom: 25.00%",  # from its right edge inwards
    ]


def test_the_name_of_a_box_at_the_upper_edge_stands_in_the_box(tmp_path):
    gold = json.dumps([{"bbox_2d": [8, 4, 40, 20], "label": "dog"}])
    page = page_of(tmp_path, [record(0, reward_type="iou", answer=gold)])
    assert [label["style"] for label in page.all("span", "label")] == ["left: 10.00%; top: 10.00%"]


def test_pictures_keep_their_shape_and_are_inside_the_page(tmp_path):
    page = page_of(tmp_path, [record(0, images=(picture(2000, 500), picture(30, 20)), image_sizes=())])
    sources = [image["src"] for image in page.all("img")]
    sizes = []
    for source in sources:
        content = base64.b64decode(re.fullmatch(r"data:image/\w+;base64,(.*)", source)[1])
        sizes.append(Image.open(io.BytesIO(content)).size)
    assert sizes == [(768, 192), (30, 20)]
    assert [image["width"] for image in page.all("img")] == ["360", "60"]
    assert not any("height" in image for image in page.all("img"))


def test_nothing_is_fetched_and_nothing_runs(tmp_path):
    hostile = record(
        0,
        id=SCRIPT,
        source=SCRIPT,
        question=f'{SCRIPT}<img src="http://evil/x.png" onerror="alert(1)"> {{{{ 7 * 7 }}}}',
        choices=(SCRIPT, '" onclick="x'),
        answer="A",
        meta=json.dumps({SCRIPT: SCRIPT, "pass_rate": 0.5}),
    )
    page = page_of(tmp_path, [hostile, record(1, reward_type='x" onload="alert(1)')])
    assert page.all("script") == []
    assert all(image["src"].startswith("data:") for image in page.all("img"))
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert not any(tag in ("link", "iframe", "object", "base") for tag, _ in page.elements)
    policy = next(
        at["content"] for at in page.all("meta") if at.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'")
    text = "".join(page.texts)
    assert text.count(SCRIPT) == 7  # sources above, source, id, question, choice, and name and value in meta
    assert "{{ 7 * 7 }}" in text


def test_the_choice_that_the_reward_takes_as_gold_is_marked(tmp_path):
    records = [
        record(0, choices=("cat", "dog"), answer="dog"),
        record(1, choices=("cat", "dog"), answer="A"),
        record(2, choices=("A cat", "B cat"), answer="(B)"),
    ]
    write_records(tmp_path / "a.parquet", records)
    files = open_files([tmp_path / "a.parquet"])
    shown = load_samples(files, [(0, 0), (0, 1), (0, 2)], 100)
    assert [one.right_choice for one in shown] == [1, 0, 1]


def test_faults_are_shown_in_place_of_what_cannot_be_drawn(tmp_path):
    page = page_of(
        tmp_path,
        [
            record(0, reward_type="iou", answer="[0, 0, 800, 30]"),
            record(1, images=(b"junk",), image_sizes=()),
            record(2, reward_type="judge"),
        ],
    )
    text = "".join(page.texts)
    assert "lies outside the image, 80 x 40" in text
    assert "picture 1: cannot be decoded" in text
    assert "unknown reward type 'judge'" in text
    assert page.all("rect") == []


def test_types_and_sources_come_in_turn_whatever_their_number(tmp_path):
    sources = {"vsr": 50, "ai2d": 3, "docci": 2}
    records = [
        record(
            1000 * place + number,
            source=source,
            reward_type="open_ended" if source == "docci" else "matching",
        )
        for place, (source, count) in enumerate(sources.items())
        for number in range(count)
    ]
    write_records(tmp_path / "a.parquet", records)
    files = open_files([tmp_path / "a.parquet"])
    shown = list(load_samples(files, choose_places(files, 6), 50))
    assert [one.record.source for one in shown].count("docci") == 2
    assert sorted(one.record.source for one in shown if one.record.source != "docci") == [
        "ai2d",
        "ai2d",
        "vsr",
        "vsr",
    ]
    assert len(choose_places(files, 100)) == 55
    only = [files[place].path.name for place, _ in choose_places(files, 9, ["docci"])]
    assert len(only) == 2


def test_the_same_records_are_shown_in_whatever_order_they_stand(tmp_path):
    records = [record(number) for number in range(40)]
    write_records(tmp_path / "a.parquet", records)
    write_records(tmp_path / "b.parquet", reversed(records))
    shown = []
    for name in "ab":
        files = open_files([tmp_path / f"{name}.parquet"])
        shown.append([one.record.id for one in load_samples(files, choose_places(files, 5), 10)])
    assert shown[0] == shown[1]
    assert np.unique(shown[0]).size == 5


def test_an_unknown_source_names_the_nearest(tmp_path):
    write_records(tmp_path / "a.parquet", [record(0)])
    with pytest.raises(UserError, match="--source vrs: .* has no such source; did you mean vsr"):
        write_page(tmp_path, tmp_path / "page.html", sources=["vrs"])
    assert not (tmp_path / "page.html").exists()


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    assert main([str(tmp_path / "none")]) == 2
    assert "there is no such file or folder" in capsys.readouterr().err
    write_records(tmp_path / "a.parquet", [record(0)])
    assert main([str(tmp_path), "--n", "0", "--out", str(tmp_path / "p.html")]) == 2
    assert main([str(tmp_path), "--out", str(tmp_path / "p.html")]) == 0
    assert "(1 records)" in capsys.readouterr().out
