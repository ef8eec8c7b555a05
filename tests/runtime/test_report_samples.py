from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

from mixed_r1_ray.runtime.evaluation_table import EvalResult
from mixed_r1_ray.runtime.report_samples import (
    choose_samples,
    find_box,
    load_picture,
    mark_up,
    pair_samples,
    save_pictures,
)


def result(
    prompt_id: str, kind: str = "matching", source: str = "s", response: str = "", **more
) -> EvalResult:
    return EvalResult(prompt_id, kind, source, "greedy", 1.5, 1.0, 1.0, response, **more)


def encoded(size: tuple[int, int], kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, kind)
    return buffer.getvalue()


def test_choice_takes_sources_in_turn_and_ignores_order_and_outcome():
    rows = [result(f"{source}{i}", source=source) for source in "abc" for i in range(20)]
    chosen = choose_samples(rows, per_type=3)
    assert sorted(prompt[0] for prompt in chosen) == ["a", "b", "c"]
    assert choose_samples(rows[::-1], per_type=3) == chosen


def test_choice_covers_every_type_and_takes_what_there_is():
    rows = [result("a"), result("b", "iou"), result("c", "iou"), result("d", "new_type")]
    assert sorted(choose_samples(rows)) == ["a", "b", "c", "d"]


def test_markup_escapes_html_and_emphasises_the_last_complete_answer():
    html = mark_up("<think>a<script>x</script></think><answer>1</answer><answer>2</answer><answer>3")
    assert "<script>" not in html and html.count("<strong>") == 1 and "<strong>2</strong>" in html
    assert mark_up("no tags & <b>") == "no tags &amp; &lt;b&gt;"


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("[1, 2, 30.5, 40]", (1, 2, 30.5, 40)),
        ('{"bbox_2d": [1,2,3,4]}', (1, 2, 3, 4)),
        ("<box>[[10, 20, 30, 40]]</box>", (10, 20, 30, 40)),
        ("[3, 2, 1, 4]", None),
        ("[1, 2, 3]", None),
        ("", None),
    ],
)
def test_boxes_are_found(text, box):
    assert find_box(text) == box


def test_gold_and_answers_are_drawn_each_in_its_own_frame(tmp_path):
    before = result(
        "a",
        "iou",
        answer="[10, 20, 30, 60]",
        image_size=(100, 200),
        box_frame=(1000.0, 1000.0),
        response="<answer>[100, 100, 300, 300]</answer>",
    )
    after = result(
        "a",
        "iou",
        answer="[10, 20, 30, 60]",
        image_size=(100, 200),
        box_frame=(1000.0, 1000.0),
        response="<answer>nothing</answer>",
    )
    (sample,) = pair_samples([before], [after], tmp_path)
    assert [(box.kind, box.x, box.y) for box in sample.boxes] == [("gold", 0.1, 0.1), ("before", 0.1, 0.1)]
    assert [(box.width, box.height) for box in sample.boxes] == [pytest.approx((0.2, 0.2))] * 2


def test_pictures_are_kept_under_safe_names_and_come_back_as_small_png(tmp_path):
    save_pictures(tmp_path / "p", {"../../evil": encoded((8, 8)), "a/b": encoded((3000, 1000), "JPEG")})
    assert {path.parent for path in tmp_path.rglob("*.png")} == {tmp_path / "p"}
    head, _, content = load_picture(tmp_path / "p", "a/b").partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        assert picture.size == (768, 256) and picture.format == "PNG"
    assert load_picture(tmp_path / "p", "a_b") is None


def test_a_prompt_without_a_later_answer_is_shown_alone(tmp_path):
    (sample,) = pair_samples([result("a")], None, tmp_path)
    assert sample.after is None and sample.picture is None
