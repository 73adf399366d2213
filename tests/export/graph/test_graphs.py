"""Graphs compared with transformers (fp32) and exact integer sums (int8), and properties of every graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest

from embedpack.host.int8_support import PROBE, products_saturate
from embedpack.inputs.batching import pad
from embedpack.pack.graph_io import SENTENCE_EMBEDDING, center_input
from embedpack.pack.manifest import Manifest
from embedpack.pack.strict import WeightsFormat
from embedpack.vectors.arrays import Float32
from embedpack.vectors.codebook import Codebook
from embedpack.vectors.codes import quantize
from embedpack_export.arrays import Matrix
from embedpack_export.assembly.pack_builder import CheckedGraph
from embedpack_export.graph.builder import CONTRIB, GraphBuilder
from embedpack_export.graph.context import Activation, GraphContext, LinearLayer
from embedpack_export.graph.external_data import WeightStore
from embedpack_export.graph.formats.fp32 import Fp32
from embedpack_export.graph.formats.int8 import Int8
from embedpack_export.pipeline import export
from embedpack_export.planning.plan import make_plan
from embedpack_export.quantization.codebook_fit import CodebookFit
from embedpack_export.quantization.smoothing import MIN_TOKENS
from embedpack_export.quantization.statistics import SiteStatistics
from embedpack_export.quantization.zero_point import bounded_range
from embedpack_export.sources.weights import Weights
from embedpack_export.stages.graph_heads import text_heads
from embedpack_export.stages.graph_writer import GraphWriter
from embedpack_export.stages.output_codes import SpaceCodes
from tests.helpers.exports import distance, pooled, quick
from tests.helpers.make_saturation_probe import probe
from tests.helpers.onnx_probe import run_model
from tests.helpers.peft_oracle import last_hidden_states, load_model
from tests.helpers.tiny_checkpoint import make_checkpoint
from tests.helpers.tiny_families import FAMILIES as TINY_FAMILIES
from tests.helpers.tiny_families import families_of

Feeds = dict[str, npt.NDArray[np.int64]]

FAMILIES = families_of("encoder")
POSITIONS = {name: 40 - TINY_FAMILIES[name].first_position for name in FAMILIES}
FORMATS: tuple[WeightsFormat, ...] = ("fp32", "int8", "int4")
TOLERANCE = 1e-6


def ragged(lengths: tuple[int, ...], model_type: str, seed: int = 0) -> Feeds:
    """A right-padded batch of random words between the family's special tokens."""
    family = TINY_FAMILIES[model_type]
    begin, end = (family.specials.index(token or "") for token in (family.start, family.end))
    padding = family.config["pad_token_id"]
    rng = np.random.default_rng(seed)
    return pad([np.array([begin, *rng.integers(4, 200, length - 2), end], np.int64) for length in lengths], padding)


def codebook(center: float = 0, blocks: tuple[int, ...] = ()) -> Codebook:
    """A codebook of 32 dimensions with a random center of that size, and a random rotation of these blocks."""
    rng = np.random.default_rng(5)
    rotation = [np.linalg.qr(rng.standard_normal((size, size)))[0].astype(np.float32) for size in blocks]
    return Codebook.gaussian((rng.standard_normal(32) * center).astype(np.float32), 0.1, tuple(rotation))


def fp32_graph(checkpoint: Path, folder: Path, pooling: str, codebook: Codebook | None = None) -> str:
    """The fp32 graph of a checkpoint without adapters, written without calibration."""
    plan = make_plan(quick(checkpoint, folder / "pack", pooling=pooling))
    folder.mkdir()
    weights = Weights(plan.checkpoint, None, plan.model.rules)
    writer = GraphWriter("graph", WeightStore(folder), plan.model.text, weights, Fp32())
    for index in range(len(plan.model.text.stages)):
        writer.append(index, {})
    fits = {} if codebook is None else {SENTENCE_EMBEDDING: CodebookFit(codebook, (), {})}
    writer.finish(text_heads(plan, SpaceCodes({SENTENCE_EMBEDDING: 0.004}, fits, 0)), folder / "graph.onnx")
    return str(folder / "graph.onnx")


# --- fp32 against transformers


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_fp32_equals_transformers(tmp_path: Path, model_type: str, pooling: str) -> None:
    """Ragged batches, one token between the special ones, no token there, the longest text."""
    checkpoint = make_checkpoint(tmp_path / "toy", model_type)
    graph, model = fp32_graph(checkpoint, tmp_path / "graph", pooling), load_model(checkpoint)
    for lengths in ((3,), (2,), (7, 3, 12, 7), (POSITIONS[model_type], 3, 20), (POSITIONS[model_type],) * 2):
        feeds = ragged(lengths, model_type, seed=len(lengths))
        expected = pooled(last_hidden_states(model, **feeds), feeds["attention_mask"], pooling)
        (found,) = run_model(graph, ["sentence_embedding"], feeds)
        assert distance(found, expected) <= TOLERANCE
        np.testing.assert_allclose(np.linalg.norm(found.astype(np.float64), axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("activation", ["gelu_new", "gelu_pytorch_tanh", "relu"])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_activation_functions_equal_transformers(tmp_path: Path, model_type: str, activation: str) -> None:
    changes: dict[str, Any] = {TINY_FAMILIES[model_type].key("hidden_act"): activation}
    checkpoint = make_checkpoint(tmp_path / "toy", model_type, **changes)
    plain = make_checkpoint(tmp_path / "plain", model_type)
    feeds = ragged((7, 3, 12), model_type)
    expected = pooled(last_hidden_states(load_model(checkpoint), **feeds), feeds["attention_mask"], "mean")
    (found,) = run_model(fp32_graph(checkpoint, tmp_path / "graph", "mean"), ["sentence_embedding"], feeds)
    (other,) = run_model(fp32_graph(plain, tmp_path / "plain-graph", "mean"), ["sentence_embedding"], feeds)
    assert distance(found, expected) <= TOLERANCE
    assert not np.array_equal(found, other)


@pytest.mark.parametrize(
    "changes",
    [
        {"layer_norm_eps": 1e-2},
        {"type_vocab_size": 3},
        {"hidden_size": 36, "intermediate_size": 50},
        {"num_attention_heads": 1},
        {"num_hidden_layers": 1},
    ],
    ids=str,
)
def test_values_of_config_reach_the_graph(tmp_path: Path, changes: dict[str, Any]) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy", **changes)
    (checkpoint / "config_sentence_transformers.json").unlink()
    feeds = ragged((7, 3, 12), "bert")
    expected = pooled(last_hidden_states(load_model(checkpoint), **feeds), feeds["attention_mask"], "mean")
    (found,) = run_model(fp32_graph(checkpoint, tmp_path / "graph", "mean"), ["sentence_embedding"], feeds)
    assert distance(found, expected) <= TOLERANCE


@pytest.mark.parametrize("model_type", ["bert", "xlm-roberta"])
def test_long_texts_with_learned_positions_equal_transformers(tmp_path: Path, model_type: str) -> None:
    """Attention without the scores of all pairs of tokens, alone and with a short text."""
    checkpoint = make_checkpoint(tmp_path / "toy", model_type, max_position_embeddings=1200)
    graph, model = fp32_graph(checkpoint, tmp_path / "graph", "mean"), load_model(checkpoint)
    assert "Attention" not in {node.op_type for node in ir.load(graph).graph}
    for lengths in ((1100,), (1100, 3), (40, 3)):
        feeds = ragged(lengths, model_type, seed=len(lengths))
        expected = pooled(last_hidden_states(model, **feeds), feeds["attention_mask"], "mean")
        (found,) = run_model(graph, ["sentence_embedding"], feeds)
        assert distance(found, expected) <= TOLERANCE


def test_the_padding_id_of_xlm_roberta_moves_the_positions(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy", "xlm-roberta", pad_token_id=3)
    graph, model = fp32_graph(checkpoint, tmp_path / "graph", "mean"), load_model(checkpoint)
    feeds = pad([np.arange(10, 10 + length) for length in (36, 4)], 3)
    expected = pooled(last_hidden_states(model, **feeds), feeds["attention_mask"], "mean")
    assert distance(run_model(graph, ["sentence_embedding"], feeds)[0], expected) <= TOLERANCE


OUTPUTS = ["sentence_embedding", "sentence_embedding_int8", "sentence_embedding_binary"]
CODEBOOKS = {
    "signs": codebook(),
    "center": codebook(0.1),
    "rotation of one block": codebook(0.1, (32,)),
    "rotation of three blocks": codebook(0.1, (8, 8, 16)),
}


def assert_bits(binary: npt.NDArray[np.uint8], vectors: Float32, expected: Codebook) -> None:
    """The codebook's digits, but for coordinates that its threshold and the graph's product lie too close to."""
    bits = np.unpackbits(binary, axis=-1)
    distances = expected.rotate(vectors) - expected.center
    differing = bits != expected.digits(vectors, "binary")
    assert not differing[np.abs(distances) >= 1e-6].any()
    assert 0.2 < bits.mean() < 0.8


@pytest.mark.parametrize("expected", CODEBOOKS.values(), ids=CODEBOOKS)
def test_codes_of_the_graph_are_those_of_the_runtime(tmp_path: Path, expected: Codebook) -> None:
    graph = fp32_graph(make_checkpoint(tmp_path / "toy"), tmp_path / "graph", "mean", expected)
    vectors, int8, binary = run_model(graph, OUTPUTS, ragged((7, 3, 12, 30), "bert"))
    unit = vectors.astype(np.float32)
    np.testing.assert_array_equal(int8, quantize(unit, "int8", 0.004))
    assert_bits(binary.astype(np.uint8), unit, expected)


def test_the_center_may_be_an_input(tmp_path: Path) -> None:
    """The center of a switchable graph is an input of the adapter; without one, bits are plain signs."""
    graph = fp32_graph(make_checkpoint(tmp_path / "toy"), tmp_path / "graph", "mean")
    feeds: dict[str, npt.NDArray[Any]] = {**ragged((7, 3, 12, 30), "bert")}
    for expected in (codebook(), codebook(0.1)):
        vectors, _, binary = run_model(graph, OUTPUTS, feeds)
        assert_bits(binary.astype(np.uint8), vectors.astype(np.float32), expected)
        feeds[center_input("sentence_embedding")] = codebook(0.1).center


# --- int8: one linear layer against exact integers


@dataclass
class OneLinear:
    """A graph of one int8 layer on an activation from its input, and the statistics of that activation."""

    kind: str
    columns: int = 48
    rows: int = 20
    moved: dict[str, Float32] = field(default_factory=dict)

    def tokens(self, count: int = 64, seed: int = 1) -> Float32:
        rng = np.random.default_rng(seed)
        sizes = np.exp(np.random.default_rng(0).standard_normal(self.columns))
        shape = count, self.columns
        values = (rng.choice((-1.0, 1.0), shape) if self.kind == "static scale" else rng.standard_normal(shape)) * sizes
        values[0] = 0
        if self.kind == "lower bound":
            values = np.maximum(values, -0.17)
        return values.astype(np.float32)

    def build(self, folder: Path, *, uncorrelated: bool = False, weights: Float32 | None = None) -> str:
        rng = np.random.default_rng(2)
        matrix = rng.standard_normal((self.rows, self.columns)).astype(np.float32) if weights is None else weights
        self.matrix, self.bias = matrix, rng.standard_normal(self.rows).astype(np.float32)
        seen = self.tokens(500, seed=3)
        covariance = np.eye(self.columns) if uncorrelated else np.cov(seen, rowvar=False, bias=True)
        count = MIN_TOKENS if self.kind == "static scale" else len(seen)
        statistics = {"site": SiteStatistics(seen.mean(0), seen.min(0), seen.max(0), (covariance,), seen[::5], count)}
        folder.mkdir(exist_ok=True)
        graph = GraphBuilder("one", WeightStore(folder))
        x = graph.input("x", ir.DataType.FLOAT, ["batch", "sequence", self.columns])

        def rescale(shift: Float32, scale: Float32, group: str) -> ir.Value:
            self.moved.update(shift=shift, scale=scale)
            difference = graph.op("Sub", [x, graph.vector("shift", shift, group)])
            return graph.op("Div", [difference, graph.vector("scale", scale, group)])

        activation = Activation(
            "site",
            lambda: x,
            rescale=rescale if self.kind in ("rescaled", "static scale") else None,
            lower_bound=-0.1701 if self.kind == "lower bound" else None,
        )
        # A format asks the context for the graph, the statistics and the report only.
        context = GraphContext(graph, {}, cast("Weights", None), Int8(), statistics)
        layer = LinearLayer(Matrix("layer.weight", matrix.shape, lambda rows: matrix[rows]), self.bias)
        (y,) = context.linears(activation, layer)
        graph.output(y, "y", ir.DataType.FLOAT, ["batch", "sequence", self.rows])
        path = folder / "one.onnx"
        ir.save(graph.build(), path)
        return str(path)

    def quantized(
        self, tokens: Float32, stored: Mapping[str, npt.NDArray[Any]]
    ) -> tuple[npt.NDArray[np.int64], int, Float32]:
        """Tokens quantized by the recipe: integers, the zero point, the scale of each row."""
        value, zero, levels = tokens, 128, 127
        if self.moved:
            value = (tokens - self.moved["shift"]) / self.moved["scale"]
        largest = np.abs(value).max(1, keepdims=True)
        if self.kind == "lower bound":
            bounded = bounded_range(self.tokens(500, seed=3)[::5], -0.1701)
            zero, levels = bounded.zero, 255 - bounded.zero
            largest = np.maximum(value.max(1, keepdims=True), np.float32(bounded.least))
        scale = np.maximum(largest * np.float32(1 / levels), np.float32(1e-12))
        if self.kind == "static scale":
            scale = np.full_like(scale, stored["site.scale"][0])
        integers = np.clip(np.rint(value / scale) + zero, 0, 255).astype(np.int64)
        return integers, zero, scale

    def exact(self, tokens: Float32, stored: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
        """The layer's output in exact integer arithmetic; only the last steps are float64."""
        integers, zero, scale = self.quantized(tokens, stored)
        sums = (integers - zero) @ stored["layer.weight.int8"].astype(np.int64)
        scales = stored["layer.weight.scales"].astype(np.float64)
        return cast("npt.NDArray[np.float64]", sums * scales * scale.astype(np.float64) + stored["layer.bias"])


def stored_tensors(path: str) -> dict[str, npt.NDArray[Any]]:
    """Initializers of a graph, external ones included."""
    values = ir.load(path).graph.initializers.values()
    return {str(value.name): value.const_value.numpy().copy() for value in values if value.const_value is not None}


def run_one(path: str, tokens: Float32) -> Float32:
    return cast("Float32", run_model(path, ["y"], {"x": tokens[None]})[0][0])


KINDS = ("plain", "rescaled", "static scale", "lower bound")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weights", ["as they come", "all alike"])
def test_an_int8_layer_is_exact_on_any_cpu(tmp_path: Path, kind: str, weights: str) -> None:
    """Also where x86 without VNNI adds two products in 16 bits, which two large weights would overflow."""
    one = OneLinear(kind)
    alike = np.ones((one.rows, one.columns), np.float32)
    path = one.build(tmp_path, weights=alike if weights == "all alike" else None)
    tokens = one.tokens()
    tokens[1] = np.abs(tokens[1]).max()
    expected = one.exact(tokens, stored_tensors(path))
    np.testing.assert_allclose(run_one(path, tokens), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_an_int8_layer_is_close_to_the_float_layer(tmp_path: Path, kind: str) -> None:
    one = OneLinear(kind)
    path = one.build(tmp_path)
    tokens = one.tokens()
    exact = tokens.astype(np.float64) @ one.matrix.T + one.bias
    assert np.linalg.norm(run_one(path, tokens) - exact) < 0.02 * np.linalg.norm(exact)


@pytest.mark.parametrize("kind", KINDS)
def test_an_int8_layer_has_no_mean_error(tmp_path: Path, kind: str) -> None:
    """The bias contains the mean rounding error, so over many tokens the error is far below its size."""
    one = OneLinear(kind)
    path = one.build(tmp_path)
    tokens = one.tokens(500, seed=3)
    error = run_one(path, tokens) - (tokens.astype(np.float64) @ one.matrix.T + one.bias)
    assert np.abs(error.mean(0)).max() < 0.2 * error.std()


def test_a_row_of_zeros_gives_the_bias(tmp_path: Path) -> None:
    one = OneLinear("plain")
    path = one.build(tmp_path)
    np.testing.assert_allclose(run_one(path, one.tokens()[:1])[0], stored_tensors(path)["layer.bias"], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_the_same_beside_other_rows(tmp_path: Path, kind: str) -> None:
    one = OneLinear(kind)
    path = one.build(tmp_path)
    tokens = one.tokens()
    together = run_one(path, tokens)
    for row in (0, 1, 17):
        np.testing.assert_array_equal(run_one(path, tokens[row : row + 1])[0], together[row])


@pytest.mark.parametrize(("kind", "named"), [("static scale", ("site",)), ("rescaled", ()), ("lower bound", ())])
def test_activations_with_a_static_scale_are_named(tmp_path: Path, kind: str, named: tuple[str, ...]) -> None:
    path = OneLinear(kind).build(tmp_path)
    assert CheckedGraph.check(Path(path)).static_activations == named


def test_weights_stay_clear_of_minus_128(tmp_path: Path) -> None:
    stored = stored_tensors(OneLinear("plain").build(tmp_path))
    assert stored["layer.weight.int8"].dtype == np.int8
    assert stored["layer.weight.int8"].min() >= -127


# --- whole packs


@dataclass(frozen=True)
class Exported:
    """A pack of all formats with its checkpoint."""

    model_type: str
    checkpoint: Path
    folder: Path
    manifest: Manifest

    def graphs(self) -> list[Path]:
        return sorted(self.folder.glob("*.onnx"))

    def graph(self, weights: str) -> str:
        """The graph of a format."""
        return str(self.folder / f"default-{weights}.onnx")


@pytest.fixture(scope="module", params=FAMILIES)
def pack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("graphs")
    checkpoint = make_checkpoint(folder / "toy", request.param)
    manifest = export(quick(checkpoint, folder / "pack", weights=FORMATS))
    return Exported(request.param, checkpoint, folder / "pack", manifest)


class Appended:
    """Nodes to insert before another node."""

    def __init__(self, prefix: str) -> None:
        self.nodes: list[ir.Node] = []
        self._prefix = prefix

    def op(self, kind: str, *inputs: ir.Value | None, **attributes: int) -> ir.Value:
        node = ir.node(kind, list(inputs), attributes=attributes, name=f"{self._prefix}.exact.{len(self.nodes)}")
        node.outputs[0].name = f"{node.name}.output"
        self.nodes.append(node)
        return node.outputs[0]


def exactly_multiplied(path: Path) -> str:
    """A copy of an int8 graph with its products in float64, which holds every sum of integers exactly."""
    model = ir.load(path)
    products = [node for node in model.graph if node.op_type == "MatMulIntegerToFloat"]
    assert len(products) == 12
    for node in products:
        values, weight, scale, scales, zero, *rest = node.inputs
        new = Appended(str(node.name))
        wide = [new.op("Cast", value, to=int(ir.DataType.DOUBLE)) for value in (values, zero, weight)]
        sums = new.op("MatMul", new.op("Sub", wide[0], wide[1]), wide[2])
        result = new.op("Mul", new.op("Cast", sums, to=int(ir.DataType.FLOAT)), new.op("Mul", scale, scales))
        if rest:
            result = new.op("Add", result, rest[-1])
        model.graph.insert_before(node, new.nodes)
        node.outputs[0].replace_all_uses_with(result)
        model.graph.remove(node, safe=True)
    exact = path.with_name(f"{path.stem}.exact")
    ir.save(model, exact)
    return str(exact)


def test_int8_gives_the_vectors_of_exact_arithmetic_on_any_cpu(pack: Exported) -> None:
    exact = exactly_multiplied(pack.folder / "default-int8.onnx")
    feeds = ragged((30, 3, 12, 7), pack.model_type)
    (expected,) = run_model(exact, ["sentence_embedding"], feeds)
    Path(exact).unlink()
    (found,) = run_model(pack.graph("int8"), ["sentence_embedding"], feeds)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_int8_and_int4_are_close_to_fp32(pack: Exported) -> None:
    feeds = ragged((30, 3, 12, 7), pack.model_type)
    (reference,) = run_model(pack.graph("fp32"), ["sentence_embedding"], feeds)
    (int8,) = run_model(pack.graph("int8"), ["sentence_embedding"], feeds)
    (int4,) = run_model(pack.graph("int4"), ["sentence_embedding"], feeds)
    assert distance(int8, reference) < 1e-3
    assert distance(int4, reference) < 3e-2


@pytest.mark.parametrize("weights", FORMATS)
def test_a_vector_does_not_depend_on_its_batch(pack: Exported, weights: str) -> None:
    """Alone, in a batch, in another order, padded further: at most 1e-6 apart."""
    lengths = (30, 3, 12, 7, 7)
    feeds = ragged(lengths, pack.model_type)
    (together,) = run_model(pack.graph(weights), ["sentence_embedding"], feeds)
    backwards = {name: values[::-1].copy() for name, values in feeds.items()}
    (turned,) = run_model(pack.graph(weights), ["sentence_embedding"], backwards)
    assert distance(turned[::-1], together) <= TOLERANCE
    for row, length in enumerate(lengths):
        alone = {name: values[row : row + 1, :length].copy() for name, values in feeds.items()}
        (vector,) = run_model(pack.graph(weights), ["sentence_embedding"], alone)
        assert distance(vector, together[row : row + 1]) <= TOLERANCE


def test_what_stands_in_the_padding_does_not_matter(pack: Exported) -> None:
    feeds = ragged((30, 3, 12), pack.model_type)
    other = {**feeds, "input_ids": np.where(feeds["attention_mask"] == 1, feeds["input_ids"], 77)}
    for weights in FORMATS:
        (found,) = run_model(pack.graph(weights), ["sentence_embedding"], feeds)
        (changed,) = run_model(pack.graph(weights), ["sentence_embedding"], other)
        assert distance(found, changed) <= TOLERANCE


def test_every_graph_passes_the_full_checker(pack: Exported) -> None:
    assert len(pack.graphs()) == 3
    for path in pack.graphs():
        onnx.checker.check_model(str(path), full_check=True)


def test_every_graph_has_the_stated_inputs_and_outputs(pack: Exported) -> None:
    for path in pack.graphs():
        graph = ir.load(path).graph
        assert [declared(value) for value in graph.inputs] == [
            ("input_ids", "INT64", ["batch", "sequence"]),
            ("attention_mask", "INT64", ["batch", "sequence"]),
            ("chunk_weights", "FLOAT", ["batch", "chunks", "sequence"]),
        ]
        assert [declared(value) for value in graph.outputs] == [
            ("sentence_embedding", "FLOAT", ["batch", "32"]),
            ("sentence_embedding_int8", "INT8", ["batch", "32"]),
            ("sentence_embedding_binary", "UINT8", ["batch", "4"]),
            ("chunk_sums", "FLOAT", ["batch", "chunks", "32"]),
        ]


def declared(value: ir.Value) -> tuple[str, str, list[str]]:
    assert value.name is not None
    assert value.dtype is not None
    assert value.shape is not None
    sizes = [size.value if isinstance(size, ir.SymbolicDim) else size for size in value.shape]
    return value.name, value.dtype.name, [str(size) for size in sizes]


def test_every_output_has_the_stated_shape_and_type(pack: Exported) -> None:
    names = ["sentence_embedding", "sentence_embedding_int8", "sentence_embedding_binary"]
    for path in pack.graphs():
        results = run_model(str(path), names, ragged((9, 3, 12), pack.model_type))
        found = [(result.shape, str(result.dtype)) for result in results]
        assert found == [((3, 32), "float32"), ((3, 32), "int8"), ((3, 4), "uint8")]


def test_chunks_are_optional_and_change_no_other_output(pack: Exported) -> None:
    feeds: dict[str, npt.NDArray[Any]] = {**ragged((9, 3, 12), pack.model_type)}
    weights = np.stack([feeds["attention_mask"], np.eye(12, dtype=np.int64)[[0, 1, 2]]], axis=1).astype(np.float32)
    for path in pack.graphs():
        without = run_model(str(path), [*OUTPUTS, "chunk_sums"], feeds)
        found = run_model(str(path), [*OUTPUTS, "chunk_sums"], feeds | {"chunk_weights": weights})
        assert without[-1].shape == (3, 0, 32)
        for one, other in zip(without[:-1], found[:-1], strict=True):
            np.testing.assert_array_equal(one, other)
        assert distance(found[-1][:, 0], found[0]) <= TOLERANCE


def test_no_graph_holds_operators_that_are_slower_or_depend_on_the_batch(pack: Exported) -> None:
    for path in pack.graphs():
        kinds = {node.op_type for node in ir.load(path).graph}
        assert not kinds & {"SkipLayerNormalization", "DynamicQuantizeLinear", "DynamicQuantizeMatMul"}
    assert "MatMulIntegerToFloat" in pack.manifest.variants["default-int8"].operators[-1]


def test_weights_are_external(pack: Exported) -> None:
    matrix = TINY_FAMILIES[pack.model_type].module("encoder.layer.0.output.dense")
    assert f"{matrix}.weight.int8" in external(pack.folder / "default-int8.onnx")


def external(path: Path) -> dict[str, tuple[str, int, int]]:
    tensors = [value.const_value for value in ir.load(path).graph.initializers.values()]
    return {
        tensor.name: (str(tensor.location), tensor.offset or 0, tensor.length or 0)
        for tensor in tensors
        if isinstance(tensor, ir.ExternalTensor)
    }


def test_graph_files_are_small(pack: Exported) -> None:
    for path in pack.graphs():
        assert path.stat().st_size < 5_000_000
        assert path.stat().st_size < 20_000 + 200 * len(list(ir.load(path).graph))


def test_operators_of_a_variant_are_listed(pack: Exported) -> None:
    for variant in pack.manifest.variants.values():
        nodes = list(ir.load(pack.folder / variant.graph).graph)
        listed = {f"{node.domain or 'ai.onnx'}.{node.op_type}" for node in nodes}
        assert set(variant.operators) == listed
        assert {node.domain for node in nodes} <= {"", CONTRIB}


@pytest.mark.parametrize("changes", [{"hidden_size": 36}, {"hidden_size": 40, "intermediate_size": 50}], ids=str)
@pytest.mark.parametrize("weights", FORMATS)
def test_sizes_that_fill_no_whole_block_export(tmp_path: Path, weights: WeightsFormat, changes: dict[str, Any]) -> None:
    """A hidden size of 312, for example, is 9.75 blocks."""
    checkpoint = make_checkpoint(tmp_path / "toy", **changes)
    (checkpoint / "config_sentence_transformers.json").unlink()
    manifest = export(quick(checkpoint, tmp_path / "pack", weights=(weights,)))
    assert manifest.single is not None
    assert manifest.single.dimensions == changes["hidden_size"]
    cosines = manifest.variants[f"default-{weights}"].accuracy.single
    assert cosines is not None
    assert cosines.min > 0.99


def test_dimensions_that_fill_no_bytes_have_no_binary_output(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy", hidden_size=36)
    (checkpoint / "config_sentence_transformers.json").unlink()
    outputs = ir.load(fp32_graph(checkpoint, tmp_path / "graph", "mean")).graph.outputs
    assert [value.name for value in outputs] == ["sentence_embedding", "sentence_embedding_int8", "chunk_sums"]


def test_the_saturation_probe_is_the_one_that_the_script_makes() -> None:
    assert probe() == PROBE


def test_the_probe_sees_products_that_int8_layers_avoid(tmp_path: Path) -> None:
    """Weights of 127 side by side are wrong on a CPU that saturates; elsewhere they are right."""
    one = OneLinear("plain")
    path = one.build(tmp_path, uncorrelated=True, weights=np.ones((one.rows, one.columns), np.float32))
    model = ir.load(path)
    weight = model.graph.initializers["layer.weight.int8"]
    weight.const_value = ir.tensor(np.full((one.columns, one.rows), 127, np.int8), name=weight.name)
    ir.save(model, path)
    tokens = np.ones((1, one.columns), np.float32)
    right = np.allclose(run_one(path, tokens), one.exact(tokens, stored_tensors(path)), rtol=1e-4)
    assert right is not products_saturate()
