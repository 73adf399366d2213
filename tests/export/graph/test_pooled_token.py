"""The last layer of a graph whose vector is that of one token: computed for this token alone, with the same result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from embedpack.pack.manifest import Pooling
from embedpack.vectors.arrays import Float32
from embedpack_export.graph.builder import GraphBuilder
from embedpack_export.graph.external_data import WeightStore
from embedpack_export.graph.pooled_token import POOLED_TOKENS, pooled_token
from embedpack_export.graph.pooling import POOL
from tests.helpers.onnx_probe import run_model

BATCH, LENGTH, CHANNELS = 3, 5, 8
MASK = np.array([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [1, 1, 1, 0, 0]])


class Layer:
    """A graph with attention between tokens, to whose output a normed product of it is added."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        rng = np.random.default_rng(4)
        self.path = folder / "layer.onnx"
        self.x = rng.standard_normal((BATCH, LENGTH, CHANNELS)).astype(np.float32)
        g = self.g = GraphBuilder("layer", WeightStore(folder))
        x = g.input("x", ir.DataType.FLOAT, ["batch", "sequence", CHANNELS])
        self.mask = g.input("mask", ir.DataType.INT64, ["batch", "sequence"])
        states = g.op("Softmax", [x], {"axis": 1})

        def product(name: str, value: ir.Value) -> ir.Value:
            weights = rng.standard_normal((CHANNELS, CHANNELS)).astype(np.float32)
            return g.op("MatMul", [value, g.weight(name, "shared", [weights], np.float32, weights.shape)])

        self.query, self.key = product("query", states), product("key", states)
        scores = rng.standard_normal((1, 1, LENGTH, LENGTH)).astype(np.float32)
        relative = g.op("Identity", [g.weight("scores", "shared", [scores], np.float32, scores.shape)])
        inputs = [self.query, self.key, states, relative]
        self.mixed = g.op("Attention", inputs, {"q_num_heads": 2, "kv_num_heads": 2})
        self.product = product("output", self.mixed)
        ones = g.vector("ones", np.ones(CHANNELS, np.float32))
        normed = g.op("LayerNormalization", [self.product, ones], {"axis": -1})
        self.hidden = g.op("Add", [normed, self.mixed])

    def run(self, pooled: ir.Value) -> Float32:
        """Values of the pooled states."""
        self.g.output(pooled, "pooled", ir.DataType.FLOAT, ["batch", CHANNELS])
        ir.save(self.g.build(), self.path)
        (values,) = run_model(str(self.path), ["pooled"], {"x": self.x, "mask": MASK})
        return values


def takes_one_token(value: ir.Value, index: int) -> bool:
    """True if the node of a value takes one token of each text as its input at `index`."""
    node = value.producer()
    assert node is not None
    read = node.inputs[index]
    assert read is not None
    producer = read.producer()
    return producer is not None and producer.op_type in {"Gather", "GatherND"}


@pytest.mark.parametrize("pooling", POOLED_TOKENS)
def test_same_states_from_one_token(pooling: Pooling, tmp_path: Path) -> None:
    whole, alone = Layer(tmp_path / "whole"), Layer(tmp_path / "alone")
    expected = whole.run(POOL[pooling](whole.g, whole.hidden, whole.mask))
    found = alone.run(pooled_token(alone.g, alone.hidden, alone.mask, pooling))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert not takes_one_token(alone.key, 0)
    if pooling == "cls":
        assert takes_one_token(alone.query, 0)
        assert takes_one_token(alone.mixed, 3)
    else:
        assert takes_one_token(alone.product, 0)
        assert takes_one_token(alone.hidden, 1)


@pytest.mark.parametrize("pooling", POOLED_TOKENS)
def test_values_that_something_else_reads_have_all_tokens(pooling: Pooling, tmp_path: Path) -> None:
    layer = Layer(tmp_path)
    layer.g.output(layer.g.op("ReduceMax", [layer.product]), "largest", ir.DataType.FLOAT, [1, 1, 1])
    pooled = pooled_token(layer.g, layer.hidden, layer.mask, pooling)
    assert not takes_one_token(layer.product, 0)
    assert not takes_one_token(layer.query, 0)
    assert takes_one_token(layer.hidden, 1)
    assert np.isfinite(layer.run(pooled)).all()
