"""Slow forms are refused, each with its message; similar fast ones pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir
import pytest

from embedpack import PackError
from embedpack_export.assembly.pack_builder import CheckedGraph
from embedpack_export.graph.lint import check_forms

F, F16, U8, I8 = ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.UINT8, ir.DataType.INT8
PATH = Path("folder/bad.onnx")


def value(name: str, dtype: ir.DataType | None = None) -> ir.Value:
    return ir.Value(name=name, type=None if dtype is None else ir.TensorType(dtype), shape=ir.Shape([2, 2]))


def model(inputs: Sequence[ir.Value], *nodes: ir.Node) -> ir.Model:
    for node in nodes:
        for index, output in enumerate(node.outputs):
            output.name = f"{node.name}.{index}"
    graph = ir.Graph(inputs, [nodes[-1].outputs[0]], nodes=nodes, opset_imports={"": 23, "com.microsoft": 1}, name="g")
    return ir.Model(graph, ir_version=10)


def product(activations: ir.DataType, weights: ir.DataType, kind: str = "MatMulIntegerToFloat") -> ir.Model:
    x, w, scale = value("x", activations), value("w", weights), value("scale", F)
    inputs = [x, w] if kind == "MatMulInteger" else [x, w, scale, scale]
    domain = "" if kind == "MatMulInteger" else "com.microsoft"
    return model([x, w, scale], ir.node(kind, inputs, domain=domain, name="product"))


def blocks(**attributes: int) -> ir.Model:
    x, w, scale = value("x", F), value("w", U8), value("scale", F)
    return model(
        [x, w, scale], ir.node("MatMulNBits", [x, w, scale], attributes, domain="com.microsoft", name="product")
    )


def chain(*kinds: tuple[str, dict[str, int]], start: ir.DataType = F) -> ir.Model:
    """Nodes of one input each, in a row; a QuantizeLinear has its scale too."""
    x, scale = value("x", start), value("scale", F)
    nodes: list[ir.Node] = []
    for index, (kind, attributes) in enumerate(kinds):
        last = nodes[-1].outputs[0] if nodes else x
        inputs = {"QuantizeLinear": [last, scale], "MatMulInteger": [last, value("w", I8)]}.get(kind, [last])
        nodes.append(ir.node(kind, inputs, attributes, name=f"{kind}{index}"))
    return model([x, scale], *nodes)


BAD = {
    "u8u8": (product(U8, U8), "node 'product' (MatMulIntegerToFloat): uint8 weights (u8 x u8) take a slow kernel"),
    "u8u8_plain": (product(U8, U8, "MatMulInteger"), "node 'product' (MatMulInteger): uint8 weights (u8 x u8)"),
    "s8s8": (product(I8, I8), "node 'product' (MatMulIntegerToFloat): int8 activations (s8 x s8) take a slow kernel"),
    "s8s8_quantized_in_the_graph": (
        chain(("QuantizeLinear", {"output_dtype": int(I8)}), ("MatMulInteger", {})),
        "node 'MatMulInteger1' (MatMulInteger): int8 activations (s8 x s8) take a slow kernel; quantize activations to",
    ),
    "8_bit_blocks": (blocks(bits=8), "node 'product' (MatMulNBits): products of 8-bit blocks without accuracy_level 4"),
    "8_bit_blocks_level_1": (blocks(bits=8, accuracy_level=1), "accuracy_level 4 are slower than float32; set it"),
    "half": (chain(("Relu", {}), start=F16), "node 'Relu0' (Relu): CPUs compute float16 as float32"),
    "half_after_a_cast": (
        chain(("Cast", {"to": int(F16)}), ("Transpose", {}), ("Relu", {})),
        "node 'Relu2' (Relu): CPUs compute float16 as float32, with casts around it; cast it to float32 once",
    ),
    "skip_norm": (
        chain(("SkipLayerNormalization", {})),
        "node 'SkipLayerNormalization0' (SkipLayerNormalization): it is slower on CPUs than Add and LayerNormalization",
    ),
}
GOOD = {
    "u8s8": product(U8, I8),
    "u8s8_quantized_in_the_graph": chain(("QuantizeLinear", {}), ("MatMulInteger", {})),
    "8_bit_blocks_level_4": blocks(bits=8, accuracy_level=4),
    "4_bit_blocks": blocks(bits=4),
    "half_that_is_cast": chain(("Reshape", {}), ("Cast", {"to": int(F)}), ("Relu", {}), start=F16),
    "skip_norm_of_decoders": chain(("SkipSimplifiedLayerNormalization", {})),
}


@pytest.mark.parametrize(("bad", "message"), BAD.values(), ids=BAD)
def test_slow_forms_are_refused(bad: ir.Model, message: str) -> None:
    with pytest.raises(PackError) as caught:
        check_forms(bad, PATH)
    assert str(caught.value).startswith("bad.onnx: node ")
    assert message in str(caught.value)


def test_on_gpus_products_alone_may_be_float16() -> None:
    for product in ("MatMul", "MatMulNBits"):
        check_forms(
            chain(("Cast", {"to": int(F16)}), (product, {}), ("Cast", {"to": int(F)}), ("Relu", {})), PATH, "cuda"
        )
    message = r"^bad\.onnx: node 'Relu1' \(Relu\): float16 is for products alone, others may exceed its range"
    with pytest.raises(PackError, match=message):
        check_forms(chain(("Cast", {"to": int(F16)}), ("Relu", {})), PATH, "cuda")
    with pytest.raises(PackError, match=r"'MatMul1' .*: CPUs compute float16 as float32"):
        check_forms(chain(("Cast", {"to": int(F16)}), ("MatMul", {})), PATH)


def test_tables_in_blocks_are_refused_on_gpus() -> None:
    table = chain(("GatherBlockQuantized", {}))
    with pytest.raises(PackError, match=r"'GatherBlockQuantized0' .*: it computes other values on GPUs than on CPUs"):
        check_forms(table, PATH, "cuda")
    check_forms(table, PATH)


def test_attention_of_float32_without_a_kernel_for_gpus_is_refused() -> None:
    with pytest.raises(PackError, match=r"'GroupQueryAttention0' .*: it has no kernel for float32 on GPUs"):
        check_forms(chain(("GroupQueryAttention", {})), PATH, "cuda")
    check_forms(chain(("GroupQueryAttention", {})), PATH)
    check_forms(chain(("GroupQueryAttention", {}), start=F16), PATH, "cuda")


@pytest.mark.parametrize("good", GOOD.values(), ids=GOOD)
def test_fast_forms_pass(good: ir.Model) -> None:
    check_forms(good, PATH)


def write(written: ir.Model, output: ir.DataType, folder: Path) -> Path:
    written.graph.outputs[0].type, written.graph.outputs[0].shape = ir.TensorType(output), ir.Shape([2, 2])
    ir.save(written, folder / "default-int8.onnx")
    return folder / "default-int8.onnx"


def test_every_graph_that_is_written_is_checked(tmp_path: Path) -> None:
    path = write(chain(("Relu", {}), start=F16), F16, tmp_path)
    with pytest.raises(PackError, match=r"^default-int8\.onnx: node 'Relu0' \(Relu\): CPUs compute float16"):
        CheckedGraph.check(path)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_an_operator_that_the_runtime_refuses_is_not_written(tmp_path: Path) -> None:
    path = write(chain(("Abs", {}), ("Elu", {})), F, tmp_path)
    with pytest.raises(PackError, match=r"^default-int8\.onnx: the runtime refuses .* operator 'ai\.onnx\.Elu'; write"):
        CheckedGraph.check(path)


def test_contents_of_a_written_graph(tmp_path: Path) -> None:
    written = CheckedGraph.check(write(chain(("Abs", {}), ("Round", {})), F, tmp_path))
    assert written.operators == ("ai.onnx.Abs", "ai.onnx.Round")
    assert (written.external_data, written.static_activations) == ((), ())
