"""The weights formats by name."""

from __future__ import annotations

from collections.abc import Mapping

from embedpack.pack.strict import WeightsFormat
from embedpack_export.graph.context import LinearFormat
from embedpack_export.graph.formats.fp16 import Fp16
from embedpack_export.graph.formats.fp32 import Fp32
from embedpack_export.graph.formats.int4 import Int4
from embedpack_export.graph.formats.int8 import Int8
from embedpack_export.quantization.gptq import RoundingMethod


def linear_formats(int4_method: RoundingMethod) -> Mapping[WeightsFormat, LinearFormat]:
    """All weights formats by name; `int4_method` is the rounding of int4 weights."""
    return {"fp32": Fp32(), "fp16": Fp16(), "int8": Int8(), "int4": Int4(int4_method)}
