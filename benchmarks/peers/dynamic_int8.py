"""Dynamic int8 of onnxruntime, made of a graph of ours or of an export of torch."""

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


def dynamic_int8_of_export(graph: Path, output: Path) -> Path:
    """Quantize a graph that torch exported with `quantize_dynamic` and its defaults."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(graph)
    # quantize_dynamic transposes the classifier, but not its shape among these.
    model.graph.ClearField("value_info")
    quantize_dynamic(model, output, weight_type=QuantType.QInt8)
    return output
