"""Runs a converter over a folder, without Ray."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from mixed_r1_ray.data.converters import find_converter
from mixed_r1_ray.data.converters.parts import plan_parts
from mixed_r1_ray.data.converters.writing import Conversion, write_part
from mixed_r1_ray.data.schema import Record
from mixed_r1_ray.rewards import validate_gold


@pytest.fixture
def run(tmp_path):
    """run(name, folder, …) -> (records by id, reasons of rows left out); every gold is one that can be
    scored.
    """

    def convert(name, folder, split="train", images=None, mapping={}, constants={}, fraction=1.0):
        converter = find_converter(name, mapping, constants)
        conversion = Conversion(converter, folder, images or folder, tmp_path / "out", split, fraction)
        records, skipped = {}, {}
        for number, part in enumerate(plan_parts(converter, folder, split)):
            _, shard = write_part(conversion, part, number, "test")
            skipped |= shard.details["skipped"]
            for row in pq.read_table(conversion.out / shard.name).to_pylist():
                record = Record.from_row(row)
                assert record.id not in records
                size = record.image_sizes[0] if record.image_sizes else None
                validate_gold(record.reward_type, record.answer, record.choices, size)
                records[record.id] = record
        return records, skipped

    return convert
