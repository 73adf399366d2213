"""A massive channel of first tokens in int8: repeated in the graph, so that other tokens keep a fine static scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest

from embedpack.pack.graph_io import ATTENTION_MASK
from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Matrix
from embedpack_export.graph.builder import GraphBuilder
from embedpack_export.graph.context import Activation, GraphContext, LinearLayer
from embedpack_export.graph.external_data import WeightStore
from embedpack_export.graph.formats.int8 import Int8
from embedpack_export.quantization.integers import MAX_PAIR_SUM
from embedpack_export.quantization.smoothing import MIN_TOKENS
from embedpack_export.quantization.statistics import StatisticsSum
from embedpack_export.sources.weights import Weights
from tests.helpers.onnx_probe import run_model

CHANNELS, OUTPUTS, RANK, LENGTH = 48, 20, 4, 50
Array = npt.NDArray[Any]


def texts(count: int, massive: float, seed: int) -> Float32:
    """Texts [count, LENGTH, CHANNELS] whose first tokens have a massive channel and are otherwise alike."""
    values = np.random.default_rng(seed).uniform(-1, 1, (count, LENGTH, CHANNELS))
    values[:, 0] = np.random.default_rng(9).uniform(-1, 1, CHANNELS)
    values[:, 0, 7] = massive
    return values.astype(np.float32)


class Layer:
    """A graph of one int8 layer and a branch behind a norm that only shifts and divides."""

    def __init__(self, folder: Path, massive: float) -> None:
        rng = np.random.default_rng(2)
        self.weights = rng.standard_normal((OUTPUTS, CHANNELS)).astype(np.float32)
        self.down = rng.standard_normal((RANK, CHANNELS)).astype(np.float32)
        seen = texts(MIN_TOKENS // LENGTH, massive, seed=3)
        collecting = StatisticsSum(CHANNELS, MIN_TOKENS)
        collecting.add(seen.reshape(-1, CHANNELS))
        collecting.add_texts(seen, np.full(len(seen), LENGTH))
        g = GraphBuilder("layer", WeightStore(folder))
        x = g.input("x", ir.DataType.FLOAT, ["batch", "sequence", CHANNELS])
        mask = g.input(ATTENTION_MASK, ir.DataType.INT64, ["batch", "sequence"])

        def rescale(shift: Float32, scale: Float32, group: str) -> ir.Value:
            return g.op("Div", [g.op("Sub", [x, g.vector("shift", shift, group)]), g.vector("scale", scale, group)])

        site = Activation("site", lambda: x, rescale=rescale)
        context = GraphContext(g, {ATTENTION_MASK: mask}, cast("Weights", None), Int8(), {"site": collecting.result()})
        layer = LinearLayer(Matrix("layer.weight", self.weights.shape, lambda rows: self.weights[rows]), None)
        (y,) = context.linears(site, layer)
        g.output(y, "y", ir.DataType.FLOAT, ["batch", "sequence", OUTPUTS])
        assert site.branch_input is not None
        g.output(site.branch_input.narrow(g, "layer"), "narrow", ir.DataType.FLOAT, ["batch", "sequence", "rank"])
        self.factor = site.branch_input.factor("layer", self.down)
        self.path = folder / "layer.onnx"
        ir.save(g.build(), self.path)

    def run(self, x: Float32, lengths: list[int]) -> tuple[Float32, Float32]:
        """Outputs of the layer and of the branch for texts of these lengths."""
        mask = (np.arange(x.shape[1]) < np.array(lengths)[:, None]).astype(np.int64)
        y, narrow = run_model(str(self.path), ["y", "narrow"], {"x": x, ATTENTION_MASK: mask, **self.factor})
        return y, narrow

    @property
    def integers(self) -> Array:
        """Weights of the layer as they are stored, int8 [values, OUTPUTS]."""
        initializers = ir.load(self.path).graph.initializers
        stored = initializers["layer.weight.int8"].const_value
        assert stored is not None
        return stored.numpy()


@pytest.fixture(scope="module", params=[12.0, -40.0])
def massive(request: pytest.FixtureRequest) -> float:
    return float(request.param)


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory, massive: float) -> Layer:
    return Layer(tmp_path_factory.mktemp("repeated"), massive)


def test_the_channel_is_repeated(layer: Layer) -> None:
    assert len(layer.integers) > CHANNELS


def test_first_tokens_and_others_are_close_to_the_float_layer(layer: Layer, massive: float) -> None:
    x = texts(5, massive, seed=5)
    y, narrow = layer.run(x, [LENGTH] * 5)
    for found, weights in ((y, layer.weights), (narrow, layer.down)):
        exact = x @ weights.T
        for tokens in (slice(0, 1), slice(1, None)):
            error, size = found[:, tokens] - exact[:, tokens], np.linalg.norm(exact[:, tokens])
            assert np.linalg.norm(error) < 0.02 * size


def test_a_text_is_the_same_beside_longer_ones(layer: Layer, massive: float) -> None:
    x = texts(3, massive, seed=6)
    together, _ = layer.run(x, [4, LENGTH, 1])
    alone, _ = layer.run(x[:1, :4], [4])
    np.testing.assert_array_equal(together[0, :4], alone[0])


def test_no_two_weights_overflow_without_vnni(layer: Layer) -> None:
    pairs = layer.integers.astype(np.int64).reshape(-1, 2, OUTPUTS)
    same_sign = pairs[:, 0] * pairs[:, 1] > 0
    assert (np.abs(pairs.sum(axis=1))[same_sign] <= MAX_PAIR_SUM).all()
