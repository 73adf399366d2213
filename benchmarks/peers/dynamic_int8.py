"""Dynamic int8 of onnxruntime, made of a graph of ours."""

from __future__ import annotations

from pathlib import Path


def dynamic_int8(graph: Path, output: Path) -> Path:
    """Quantize a graph with `quantize_dynamic` and its defaults: one scale for each tensor."""
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Its inference of types does not know all operators of the graph.
    options = {"DefaultTensorType": TensorProto.FLOAT}
    quantize_dynamic(graph, output, weight_type=QuantType.QUInt8, extra_options=options)
    return output
