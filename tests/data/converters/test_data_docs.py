"""The ten lines of docs/data.md make a working converter."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

from native_layouts import put_json, put_picture

from mixed_r1_ray.data.converters import CONVERTERS, OwnData

DOCS = Path(__file__).parents[3] / "docs/data.md"
IMPORTS = """
from mixed_r1_ray.data.converters.annotations import read_list
from mixed_r1_ray.data.converters.base import Converter, Example, Row, first_file
"""


def test_the_example_converter_works_as_it_stands(tmp_path, run, monkeypatch):
    (code,) = re.findall(r"```python\n(class TallyQA.*?)```", DOCS.read_text(), re.DOTALL)
    (tmp_path / "tallyqa_converter.py").write_text(IMPORTS + code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(CONVERTERS, "tallyqa", import_module("tallyqa_converter").TallyQA)
    row = {"image": "VG_100K/2.jpg", "question": "How many cats?", "answer": 3, "question_id": 77}
    put_json(tmp_path / "train.json", [row])
    put_picture(tmp_path / "VG_100K/2.jpg")
    (record,) = run("tallyqa", tmp_path)[0].values()
    assert (record.id, record.answer, record.reward_type) == ("tallyqa-train-77", "3", "counting")


def test_every_converter_is_in_the_table():
    text = DOCS.read_text()
    for name, kind in CONVERTERS.items():
        if not issubclass(kind, OwnData):
            assert f"`{name.replace('_plus', '+')}`" in text, name
