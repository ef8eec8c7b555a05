from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from mixed_r1_ray.runtime.charts import (
    HEIGHT,
    WIDTH,
    Marker,
    Series,
    interval_chart,
    line_chart,
    number,
    smoothed,
    stacked_chart,
)


def coordinates(svg: str, css: str) -> list[list[float]]:
    root = ElementTree.fromstring(svg)
    path = next(node for node in root.iter() if css in node.get("class", "").split())
    return [list(map(float, pair.split())) for pair in path.get("d").strip("MZ").split("L")]


def test_a_rising_line_rises_on_the_page_and_spans_it():
    points = coordinates(line_chart([Series("a", [(1, 0.0), (2, 0.5), (3, 1.0)], "c-a")]), "line")
    (x1, y1), (x2, y2), (x3, y3) = points
    assert x1 < x2 < x3 and y1 > y2 > y3
    assert 0 <= y3 and y1 <= HEIGHT and x3 <= WIDTH and x2 - x1 == pytest.approx(x3 - x2, abs=0.11)


def test_a_logarithmic_axis_spaces_decades_evenly_and_skips_zero():
    svg = line_chart([Series("a", [(1, 1e-6), (2, 0.0), (3, 1e-5), (4, 1e-4)], "c-a")], log=True)
    heights = [y for _, y in coordinates(svg, "line")]
    assert len(heights) == 3 and heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.11)


@pytest.mark.parametrize("values", [[0.0], [5.0], [0.0, 0.0], [-1.0, 1.0], [1e-12, 2e-12], [1e9, 1e9]])
def test_degenerate_ranges_still_draw(values):
    svg = line_chart([Series("a", list(enumerate(values)), "c-a")])
    assert ElementTree.fromstring(svg) is not None and "nan" not in svg and "inf" not in svg


def test_nothing_to_draw_is_an_empty_string():
    assert (
        line_chart([Series("a", [], "c-a")]) == "" == line_chart([Series("a", [(1, 0.0)], "c-a")], log=True)
    )


def test_labels_are_escaped():
    svg = line_chart([Series("<b>&", [(1, 1.0), (2, 2.0)], "c-a", [Marker(1, 1.0, 0.1, False, "</svg>")])])
    assert "<b>" not in svg and ElementTree.fromstring(svg) is not None


def test_two_markers_of_a_step_stand_beside_each_other():
    markers = [Marker(2, 0.4, 0.1, hollow, "") for hollow in (False, True)]
    root = ElementTree.fromstring(line_chart([Series("a", [(1, 0.0), (2, 0.5), (3, 1.0)], "c-a", markers)]))
    filled, hollow = ([float(line.get("x1")) for line in group.iter("line")] for group in root.iter("g"))
    step = coordinates(ElementTree.tostring(root, "unicode"), "line")[1][0]
    assert filled[0] < step < hollow[0] and hollow[0] - filled[0] > 1.6  # wider than a whisker


def test_long_lines_are_averaged_in_bins_of_steps():
    points = coordinates(
        line_chart([Series("a", [(step, 1.0 + step % 2) for step in range(1, 5001)], "c-a")]), "raw"
    )
    assert len(points) <= 240


def test_layers_stack_and_are_cut_off_at_the_top():
    layers = [Series("a", [(1, 1.0), (2, 1.0)], "t-a"), Series("b", [(1, 1.0), (2, 9.0)], "t-b")]
    svg = stacked_chart(layers, top=4.0)
    lower, upper = coordinates(svg, "t-a"), coordinates(svg, "t-b")
    assert upper[0][1] < lower[0][1]  # b starts above a
    assert (
        upper[3] == lower[0] and min(y for _, y in upper) == 10.0
    )  # its floor is a's ceiling; 9 ends at the top edge


def test_an_interval_lies_about_its_value():
    root = ElementTree.fromstring(interval_chart(0.5, 0.25, 1.0, "v-up"))
    whisker = next(node for node in root if "whisker" in node.get("class"))
    dot = next(node for node in root if "dot" in node.get("class"))
    assert float(whisker.get("x1")) < float(dot.get("cx")) < float(whisker.get("x2"))
    assert float(dot.get("cx")) == pytest.approx(74.0) and float(whisker.get("x1")) > 50


def test_smoothing_keeps_a_straight_line_inside_and_its_length():
    line = [(step, 2.0 * step) for step in range(100)]
    assert len(smoothed(line)) == 100
    assert smoothed(line)[50] == pytest.approx((50, 100.0))
    assert smoothed(line[:10]) == line[:10]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.41234, "0.412"), (12345.6, "12,346"), (4.12e-7, "4.1e-07")]
)
def test_numbers(value, text):
    assert number(value) == text
