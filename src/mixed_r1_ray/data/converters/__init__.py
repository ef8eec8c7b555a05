"""Converters of public datasets into records, by name. A new one is a class and its entry here."""

from __future__ import annotations

from collections.abc import Mapping

from mixed_r1_ray.data.converters.ai2d import AI2D
from mixed_r1_ray.data.converters.aokvqa import AOKVQA
from mixed_r1_ray.data.converters.base import Converter
from mixed_r1_ray.data.converters.captions import DOCCI, COCOCaptions
from mixed_r1_ray.data.converters.charts import ChartQA, PlotQA
from mixed_r1_ray.data.converters.conversations import LLaVADetail, ShareGPT4V
from mixed_r1_ray.data.converters.geometry3k import Geometry3K
from mixed_r1_ray.data.converters.own import OwnData, OwnJsonLines, OwnParquet
from mixed_r1_ray.data.converters.referring import RefCOCO, RefCOCOg, RefCOCOPlus
from mixed_r1_ray.data.converters.scienceqa import ScienceQA
from mixed_r1_ray.data.converters.yes_no import VSR, FigureQA
from mixed_r1_ray.errors import UserError

CONVERTERS: dict[str, type[Converter]] = {
    converter.name: converter
    for converter in (
        *(ScienceQA, AI2D, AOKVQA, Geometry3K, VSR, FigureQA),
        *(ChartQA, PlotQA),
        *(RefCOCO, RefCOCOPlus, RefCOCOg),
        *(COCOCaptions, LLaVADetail, ShareGPT4V, DOCCI),
        *(OwnJsonLines, OwnParquet),
    )
}


def find_converter(name: str, mapping: Mapping[str, str], constants: Mapping[str, str]) -> Converter:
    """The converter of that name. mapping and constants are for one's own data alone. Raises UserError."""
    kind = CONVERTERS.get(name.replace("+", "_plus"))
    if kind is None:
        raise UserError(f"{name}: no converter has this name; there are {', '.join(CONVERTERS)}")
    if issubclass(kind, OwnData):
        return kind(mapping, constants)
    if mapping or constants:
        raise UserError(f"--map and --set are for jsonl and parquet; {name} has a layout of its own")
    return kind()
