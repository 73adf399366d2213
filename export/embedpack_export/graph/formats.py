"""The weights formats by name."""

from __future__ import annotations

from collections.abc import Mapping

from embedpack.pack import WeightsFormat
from embedpack_export.graph.fp32 import Fp32
from embedpack_export.graph.int4 import Int4
from embedpack_export.graph.int8 import Int8
from embedpack_export.graph.target import LinearFormat

FORMATS: Mapping[WeightsFormat, LinearFormat] = {"fp32": Fp32(), "int8": Int8(), "int4": Int4()}
