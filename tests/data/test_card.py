"""The data card: right numbers, harmless texts, charts that add up."""

from __future__ import annotations

import html
import io
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image

from mixed_r1_ray.data.card_charts import COLOURS, WIDTH, histogram, pie
from mixed_r1_ray.data.mixing import build_mixture
from mixed_r1_ray.data.recipe import load_recipe
from mixed_r1_ray.data.schema import Record, write_records
from mixed_r1_ray.types import REWARD_TYPES

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</table><script>alert(1)</script> | `code` ![x](http://evil/x.png) {{ 7 * 7 }}\n\n# Title"


def picture(colour: str, size: tuple[int, int] = (100, 60)) -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", size, colour).save(encoded, "PNG")
    return encoded.getvalue()


@pytest.fixture
def card(tmp_path):
    """A folder with a mixture of three boxes and one hostile caption without a picture that decodes."""
    size = ((100, 60),)
    boxes = [
        Record(f"box {n}", "refcoco", "iou", (picture(c),), size, "Where is it?", "[10, 20, 50, 40]")
        for n, c in enumerate(("white", "black", "red"))
    ]
    caption = Record("c", "a|b", "open_ended", (b"junk",), (), HOSTILE, HOSTILE, meta='{"pass_rate": 0.25}')
    write_records(tmp_path / "in.parquet", [*boxes, caption])
    (tmp_path / "recipe.yaml").write_text(
        "name: '#1 \"mix\"'\ndescription: two <types>\nsize: 4\ntypes:\n"
        "  iou: {quota: 3, sources: {refcoco: {license: 'CC | BY', url: 'javascript:alert(1)'}}}\n"
        "  open_ended: {sources: {'a|b': {license: none, url: 'https://example.org/a'}}}\n"
    )
    build_mixture(load_recipe(str(tmp_path / "recipe.yaml")), [tmp_path / "in.parquet"], tmp_path / "out")
    return tmp_path / "out"


def test_the_header_is_yaml_that_points_at_the_shards(card):
    header = yaml.safe_load((card / "README.md").read_text().split("---")[1])
    assert header["pretty_name"] == '#1 "mix"'
    assert header["configs"][0]["data_files"] == [{"split": "train", "path": "train/*.parquet"}]
    assert header["size_categories"] == ["n<1K"]
    assert [feature["name"] for feature in header["dataset_info"]["features"]][3] == "images"


def test_tables_hold_counts_and_licences(card):
    text = (card / "README.md").read_text()
    assert "| iou | 3 | 75.0 % |" in text
    assert "| refcoco | iou | 3 | 3 | 3 | 0 |" in text
    assert "| refcoco | CC &#124; BY | javascript&#58;alert&#40;1&#41; |  |" in text
    assert "[example.org/a](https://example.org/a)" in text


def test_hostile_texts_stay_texts(card):
    text = (card / "README.md").read_text()
    assert "<script" not in text and "![x]" not in text and "`code`" not in text
    read_back = html.unescape(text)
    assert read_back.count(" ".join(HOSTILE.split())) == 2  # question and gold, to the letter
    rows = [line for line in text.splitlines() if line.startswith("| a&#124;b")]
    assert len(rows) == 2 and rows[0].count("|") == 7


def test_every_file_that_the_card_names_is_there(card):
    text = (card / "README.md").read_text()
    names = re.findall(r'(?:\]\(|src=")(card/[^")]+)', text)
    assert len(names) == 4 + 3  # charts and samples; the caption's picture cannot be decoded
    assert all((card / name).is_file() for name in names)
    assert "a picture that cannot be decoded" in text


def test_gold_boxes_are_drawn_on_the_samples(card):
    # The pictures have one colour each, so green can only be the box; they are shown at twice their size.
    for path in (card / "card").glob("sample-*.png"):
        pixels = np.asarray(Image.open(path)).astype(int)
        green = np.argwhere((pixels == (0x12, 0xA1, 0x50)).all(axis=-1))
        assert green.min(axis=0).tolist() == [40, 20] and green.max(axis=0).tolist() == [80, 100]


def test_parts_of_the_ring_add_up_to_its_circumference():
    root = ElementTree.fromstring(pie({"matching": 3, "iou": 1}, "Types <&>"))
    dashes = [circle.get("stroke-dasharray").split() for circle in root.iter(f"{SVG}circle")]
    assert float(dashes[0][0]) == pytest.approx(3 * float(dashes[1][0]), abs=0.02)
    assert sum(float(part) for part, _ in dashes) == pytest.approx(float(dashes[0][1]), abs=0.02)
    assert [text.text for text in root.iter(f"{SVG}text")][1:3] == ["matching: 3 (75.0%)", "iou: 1 (25.0%)"]


def test_bars_count_every_value_once():
    values = {"matching": np.array([0.0, 0.1, 0.1, 0.97]), "chart": np.array([0.1, 1.0])}
    root = ElementTree.fromstring(histogram(values, "Pass rate", "mean reward", limits=(0.0, 1.0)))
    titles = [title.text for title in root.iter(f"{SVG}title")]
    assert sum(int(title.rpartition(": ")[2]) for title in titles) == 6
    bars = {title.rpartition(" to ")[0]: int(title.rpartition(": ")[2]) for title in titles}
    assert bars["matching, 0.0833333"] == 2 and bars["chart, 0.0833333"] == 1  # 24 bins: .1 is in the third


def test_whole_numbers_have_a_bar_each_and_long_tails_are_told():
    svg = histogram({"iou": np.array([2] * 500 + [3] * 499 + [100_000])}, "Length", "words")
    assert re.findall(r"<title>(.*?)</title>", svg) == ["iou, 2 to 2 words: 500", "iou, 3 to 3 words: 500"]
    assert "in the last bar 1 of 4 and more" in svg


def texts_at(svg: str) -> dict[str, float]:
    return {node.text: float(node.get("x")) for node in ElementTree.fromstring(svg).iter(f"{SVG}text")}


def bar_of(svg: str, title: str) -> tuple[float, float]:
    """Left and right edge of the bar whose tooltip begins with `title`."""
    bars = {bar.findtext(f"{SVG}title"): bar for bar in ElementTree.fromstring(svg).iter(f"{SVG}rect")}
    bar = next(bar for text, bar in bars.items() if text and text.startswith(title))
    return float(bar.get("x")), float(bar.get("x")) + float(bar.get("width"))


@pytest.mark.parametrize(
    "most, label, bar",
    [(14, "12", "iou, 12 to 12 words"), (40, "10–11", "iou, 10 to 11 words"), (0, "0", "iou, 0 to 0 words")],
)
def test_the_name_of_a_bar_stands_below_the_bar_that_counts_it(most, label, bar):
    svg = histogram({"iou": np.arange(most + 1)}, "Length", "words")
    left, right = bar_of(svg, bar)
    assert left < texts_at(svg)[label] < right


def test_a_histogram_says_which_colour_is_which_type_of_those_it_holds():
    svg = histogram({kind: np.array([0.5]) for kind in REWARD_TYPES} | {"iou": np.empty(0)}, "x", "y", (0.0, 1.0))
    shown = texts_at(svg)
    assert [kind for kind in REWARD_TYPES if kind in shown] == [kind for kind in REWARD_TYPES if kind != "iou"]
    colours = [rect.get("fill") for rect in ElementTree.fromstring(svg).iter(f"{SVG}rect")]
    assert all(colours.count(COLOURS[kind]) == 2 for kind in REWARD_TYPES if kind != "iou")  # key and bar
    starts = sorted((shown[kind], len(kind)) for kind in REWARD_TYPES if kind in shown)
    ends = [start + 6.7 * letters for start, letters in starts]
    assert all(end < start for end, (start, _) in zip(ends, starts[1:], strict=False)) and ends[-1] < WIDTH


def test_types_are_stacked_in_one_order_whichever_came_first():
    values = {"iou": np.array([0.5]), "matching": np.array([0.5])}
    turned = dict(reversed(values.items()))
    assert histogram(values, "x", "y", (0.0, 1.0)) == histogram(turned, "x", "y", (0.0, 1.0))


def test_counts_in_millions_fit_left_of_the_axis():
    svg = histogram({"iou": np.zeros(2_000_000)}, "Pass rate", "x", (0.0, 1.0))
    assert {"0", "1M", "2M"} <= texts_at(svg).keys()
    assert {"15k", "30k"} <= texts_at(histogram({"iou": np.zeros(25_000)}, "Pass rate", "x", (0.0, 1.0))).keys()


def test_no_values_make_no_chart():
    assert histogram({}, "Pass rate", "x") == ""
