"""The weights formats by name."""

from __future__ import annotations

from collections.abc import Mapping

from embedpack.pack.strict import WeightsFormat
from embedpack.pack.variants import Device
from embedpack_export.graph.context import LinearFormat
from embedpack_export.graph.formats.fp16 import Fp16
from embedpack_export.graph.formats.fp32 import Fp32
from embedpack_export.graph.formats.int4 import Int4
from embedpack_export.graph.formats.int4_cuda import Int4Cuda
from embedpack_export.graph.formats.int8 import Int8
from embedpack_export.quantization.gptq import RoundingMethod


def linear_formats(int4_method: RoundingMethod, int4_device: Device) -> Mapping[WeightsFormat, LinearFormat]:
    """All weights formats by name; the arguments are the rounding of int4 weights, and the device they are for."""
    int4 = Int4(int4_method) if int4_device == "cpu" else Int4Cuda(int4_method)
    return {"fp32": Fp32(), "fp16": Fp16(), "int8": Int8(), "int4": int4}


def vision_formats(formats: Mapping[WeightsFormat, LinearFormat]) -> Mapping[WeightsFormat, LinearFormat]:
    """The formats for vision towers, with float32 between weights of any format: published towers exceed float16."""
    int4 = formats.get("int4")
    blocks: Mapping[WeightsFormat, LinearFormat] = {"int4": Int4(int4.method)} if isinstance(int4, Int4Cuda) else {}
    return {**formats, **blocks, "fp16": Fp32()}
