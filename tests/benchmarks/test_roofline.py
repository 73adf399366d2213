"""The roofline: shapes, work and roles of nodes, floors, the profile of a tiny pack, predictions for other hosts."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks.checkpoints.make_v4 import make_v4
from benchmarks.roofline import page, roofline
from benchmarks.roofline.groups import ADDED, UNKNOWN, Group, groups_of
from benchmarks.roofline.profile import node_times
from benchmarks.roofline.rates import Rates
from benchmarks.roofline.roles import roles_of
from benchmarks.roofline.totals import Total, predicted
from benchmarks.roofline.values import nodes_of, values_of
from benchmarks.roofline.work import work_of
from embedpack.errors import InputError
from embedpack.pack.folder import Pack, read_pack
from embedpack_export.evaluation.provenance import provenance
from embedpack_export.graph.towers.causal_attention import PARTS
from embedpack_export.pipeline import export
from tests.helpers.exports import quick
from tests.helpers.tiny_decoder import make_decoder

PACK = Path(__file__).parents[1] / "runtime/packs/tiny"
RATES = Rates({"int8": 4e9, "fp32": 1e9}, {1_000: 8e9, 1_000_000: 2e9})
RESULTS = {
    "peak_of_a_core": {"int8": {"gops": 4.0, "instructions": "i"}, "fp32": {"gops": 1.0, "instructions": "f"}},
    "copy_gb_per_s": {"1000": 8.0, "1000000": 2.0},
}


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    roofline.add_arguments(parser)
    return parser.parse_args([str(PACK), *arguments], argparse.Namespace(seed=3))


@pytest.fixture(scope="module")
def pack() -> Pack:
    return read_pack(PACK)


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "measured_rates", lambda: RESULTS)


def layer() -> onnx.ModelProto:
    """An int8 product with a row scale, a GELU in a branch, and shapes that are computed from the input's."""
    nodes = [
        helper.make_node("LayerNormalization", ["x", "w"], ["n"], name="norm"),
        helper.make_node("Abs", ["n"], ["a"], name="abs"),
        helper.make_node("ReduceMax", ["a", "axes"], ["r"], name="largest", keepdims=1),
        helper.make_node("QuantizeLinear", ["n", "one", "zero"], ["q"], name="quantize"),
        helper.make_node("MatMulIntegerToFloat", ["q", "W", "one", "one", "zero"], ["p"], "mm", domain="com.microsoft"),
        helper.make_node("Mul", ["p", "r"], ["s"], name="scale"),
        helper.make_node("Shape", ["x"], ["shape"], name="shape"),
        helper.make_node("Expand", ["one", "shape"], ["e"], name="expand"),
        helper.make_node("If", ["yes"], ["g"], name="if", then_branch=branch("then"), else_branch=branch("else")),
        helper.make_node("LayerNormalization", ["g", "w6"], ["m"], name="last"),
        helper.make_node("ReduceSum", ["m", "axes"], ["y"], name="pool"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "sequence", 4])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    constants = [
        helper.make_tensor("w", TensorProto.FLOAT, [4], [1] * 4),
        helper.make_tensor("w6", TensorProto.FLOAT, [6], [1] * 6),
        helper.make_tensor("axes", TensorProto.INT64, [1], [-1]),
        helper.make_tensor("one", TensorProto.FLOAT, [], [1]),
        helper.make_tensor("zero", TensorProto.UINT8, [], [0]),
        helper.make_tensor("yes", TensorProto.BOOL, [], [True]),
        helper.make_tensor("W", TensorProto.INT8, [4, 6], [1] * 24),
    ]
    graph = helper.make_graph(nodes, "layer", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def branch(name: str) -> onnx.GraphProto:
    output = helper.make_tensor_value_info(f"g.{name}", TensorProto.FLOAT, None)
    return helper.make_graph([helper.make_node("Gelu", ["s"], [f"g.{name}"], name=f"gelu.{name}")], name, [], [output])


def test_shapes_work_and_roles_of_a_layer() -> None:
    model = layer()
    values, nodes = values_of(model, {"x": (2, 5, 4)}), list(nodes_of(model.graph))
    assert {name: values[name].shape for name in ("p", "e", "g", "g.else", "y")} == {
        "p": (2, 5, 6), "e": (2, 5, 4), "g": (2, 5, 6), "g.else": (2, 5, 6), "y": (2, 5, 1),
    }  # fmt: skip
    roles = dict(zip([node.name for node in nodes], roles_of(nodes, values), strict=True))
    assert roles == {
        "norm": "norms", "abs": "activation", "largest": "activation", "quantize": "quantization", "mm": "products",
        "scale": "activation", "shape": "heads", "expand": "heads", "if": "residual", "gelu.then": "activation",
        "gelu.else": "activation", "last": "norms", "pool": "heads",
    }  # fmt: skip
    work = {node.name: work_of(node, values) for node in nodes}
    product, norm = work["mm"], work["norm"]
    assert product is not None
    assert norm is not None
    assert (product.arithmetic, product.products) == ("int8", 2 * 5 * 6 * 4)
    assert product.activation_bytes == 2 * 5 * (4 + 6 * 4)
    assert product.weight_bytes == 24 + 4 + 4 + 1
    assert (norm.products, norm.activation_bytes, norm.elements) == (0, 2 * 2 * 5 * 4 * 4, 40)


def test_nodes_that_did_not_run_do_not_count() -> None:
    times = {"mm": 3.0, "gelu.then": 1.0, "if": 0.5, "new": 0.25}
    groups = groups_of(layer(), {"x": (2, 5, 4)}, RATES, times)
    assert {(group.operator, group.nodes, group.measured_s) for group in groups} == {
        ("MatMulIntegerToFloat", 1, 3.0), ("Gelu", 1, 1.0), ("If", 1, 0.5), (ADDED, 1, 0.25),
    }  # fmt: skip
    assert len(groups_of(layer(), {"x": (2, 5, 4)}, RATES, None)) > len(groups)


def group(**changes: Any) -> Group:
    values: dict[str, Any] = {
        "role": "products", "operator": "MatMul", "values": "", "nodes": 2, "arithmetic": "fp32", "products": 500_000,
        "weight_bytes": 0.0, "activation_bytes": 800.0, "elements": 100, "floor_s": 0.0, "measured_s": 3e-3,
    }  # fmt: skip
    return Group(**{**values, **changes})


def test_floor_is_the_larger_one_of_products_and_bytes() -> None:
    assert RATES.floor_s(group().work, 0) == 1e-3
    assert RATES.floor_s(group(arithmetic="int8").work, 0) == 2.5e-4
    assert RATES.floor_s(group(arithmetic=None, products=0).work, 0) == 800 / 8e9
    # Weights of a large graph come from memory, and so do activations of more than the largest working set.
    bytes_only = group(arithmetic=None, products=0, weight_bytes=100.0, activation_bytes=4e6).work
    assert RATES.floor_s(bytes_only, 1e7) == pytest.approx((100 + 4e6) / 2e9)


def test_prediction_keeps_the_distance_to_the_floor() -> None:
    faster = Rates({"int8": 4e9, "fp32": 4e9}, RATES.copies)
    here = [group(floor_s=1e-3), group(role="other", products=0, arithmetic=None, activation_bytes=0.0)]
    there = predicted(here, faster)
    assert [each.measured_s for each in there] == [pytest.approx(3e-3 / 4), 3e-3]
    assert Total.of("all", there).measured_s == pytest.approx(2 * (3e-3 / 4 + 3e-3))


def test_a_node_with_a_subgraph_has_no_time_of_the_nodes_in_it() -> None:
    def event(name: str, ts: int, dur: int, category: str = "Node") -> dict[str, Any]:
        return {"cat": category, "name": name, "ts": ts, "dur": dur, "args": {"op_name": name.split("_")[0]}}

    events = [
        event("If_kernel_time", 0, 10), event("Add_kernel_time", 2, 3), event("Add_kernel_time", 6, 2),
        event("Mul_kernel_time", 10, 4), event("model_run", 0, 20, "Session"),
        event("Mul_kernel_time", 31, 5), event("model_run", 30, 20, "Session"),
    ]  # fmt: skip
    first, second = node_times(events)
    assert first == pytest.approx({"If": 5e-6, "Add": 5e-6, "Mul": 4e-6})
    assert second == pytest.approx({"Mul": 5e-6})


@pytest.mark.usefixtures("rates")
@pytest.mark.parametrize("weights", ["fp32", "int8", "int4"])
def test_every_node_of_a_pack_is_known(weights: str) -> None:
    row = roofline.run(options("--graph-only", "--weights", weights, "--shape", "2x7"))["shapes"][0]
    groups = msgspec.convert(row["groups"], list[Group])
    assert [each for each in groups if each.values == UNKNOWN] == []
    assert {each.role for each in groups} >= {"products", "attention", "norms", "heads", "table"}
    assert row["cpu_s"] is None


@pytest.mark.usefixtures("rates")
def test_measured_times_and_the_prediction_for_a_host(tmp_path: Path, pack: Pack) -> None:
    first = roofline.run(options("--shape", "1x6", "--seconds", "0"))
    report = {"benchmark": "roofline", "results": first, "provenance": {"cpu": {"model": "Other CPU"}}}
    (tmp_path / "theirs.json").write_text(json.dumps(report))
    results = roofline.run(options("--shape", "1x6", "--seconds", "0", "--host", str(tmp_path / "theirs.json")))
    row = results["shapes"][0]
    groups = msgspec.convert(row["groups"], list[Group])
    assert row["runs"] == 5
    assert all(each.measured_s is not None and each.operator != ADDED for each in groups)
    # The same rates there and here.
    assert row["predicted"] == row["groups"]
    assert row["cpu_s_there"] == first["shapes"][0]["cpu_s"]
    floors = roofline.run(options("--shape", "1x6", "--graph-only", "--host", str(tmp_path / "theirs.json")))
    assert "floor on Other CPU" in roofline.table(json.loads(json.dumps(floors)))
    text = roofline.table(json.loads(json.dumps(results)))
    assert "are no products" in text
    assert "predicted for Other CPU" in text
    report = {"benchmark": "roofline", "command": "c", "provenance": provenance(1, 3), "results": results}
    (tmp_path / "ours.json").write_text(json.dumps(report))
    assert page.main([str(tmp_path / "ours.json"), "-o", str(tmp_path / "page.html")]) == 0
    written = (tmp_path / "page.html").read_text()
    assert "floor and measured time" in written
    assert all(f">{role}<" in written for role in ("products", "quantization"))
    assert results["fingerprint"] == pack.manifest.source.fingerprint


@pytest.mark.usefixtures("rates")
def test_floors_count_the_branch_that_is_taken(tmp_path: Path) -> None:
    export(quick(make_decoder(tmp_path / "toy", "qwen2"), tmp_path / "pack", pooling="last", weights=("fp32",)))
    decoder = argparse.Namespace(**{**vars(options("--graph-only")), "pack": tmp_path / "pack", "weights": "fp32"})
    attentions = []
    for shape in ((1, 95), (2, 160), (1, 160)):
        decoder.shape = [shape]
        groups = msgspec.convert(roofline.run(decoder)["shapes"][0]["groups"], list[Group])
        assert [each for each in groups if each.values == UNKNOWN] == []
        attentions.append([each for each in groups if each.operator == "GroupQueryAttention"])
    # A long text has parts, whose queries have more keys from one to the next.
    assert [len(each) for each in attentions] == [1, 1, PARTS]
    (whole,), parts = attentions[1:]
    per_text = whole.nodes * whole.products // 2
    assert sum(each.nodes * each.products for each in parts) * 2 * PARTS == per_text * (PARTS + 1)


@pytest.mark.usefixtures("rates")
def test_a_page_goes_through_the_vision_graph(tmp_path: Path) -> None:
    export(quick(make_v4(tmp_path / "toy"), tmp_path / "pack", tasks=("retrieval",), weights=("fp32", "int8")))
    found = argparse.Namespace(**{**vars(options("--page", "84x56", "--seconds", "0")), "pack": tmp_path / "pack"})
    results = roofline.run(found)
    (row,) = results["shapes"]
    assert (results["variant"], row["rows"], row["tokens"]) == ("vision-int8", 84, 56)
    groups = msgspec.convert(row["groups"], list[Group])
    assert [each for each in groups if each.values == UNKNOWN] == []
    # Windows and the whole page.
    assert {"Attention", "MultiHeadAttention"} <= {each.operator for each in groups}
    assert all(each.measured_s is not None for each in groups)


def test_refused_options(tmp_path: Path) -> None:
    other = {"benchmark": "speed", "provenance": {"cpu": {"model": "c"}}}
    other["results"] = {"fingerprint": "f", "variant": "v", "rates": RESULTS, "shapes": []}
    (tmp_path / "other.json").write_text(json.dumps(other))
    (tmp_path / "zero.json").write_text(json.dumps({**other, "benchmark": "roofline"}).replace("4.0", "0.0"))
    for arguments, message in (
        (["--weights", "fp16"], "--weights"),
        (["--task", "code"], "--task"),
        (["--shape", "1x100000"], "takes at most"),
        (["--page", "100x100"], "reads texts only"),
        (["--page", "100x100", "--shape", "1x6"], "pages or texts"),
        (["--host", str(tmp_path / "other.json")], "results of the benchmark"),
        (["--host", str(tmp_path / "zero.json")], "must be above 0"),
        (["--host", str(tmp_path / "none.json")], "no results file of"),
    ):
        with pytest.raises(InputError, match=message):
            roofline.run(options(*arguments))
