"""Causal attention of decoders: one long text in parts, all other batches in one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from embedpack.pack.graph_io import ATTENTION_MASK
from embedpack.vectors.arrays import Float32
from embedpack_export.graph.builder import GraphBuilder
from embedpack_export.graph.context import GraphContext
from embedpack_export.graph.external_data import WeightStore
from embedpack_export.graph.formats.fp32 import Fp32
from embedpack_export.graph.towers.causal_attention import MIN_TOKENS, PARTS, Heads, causal_attention
from embedpack_export.sources.weights import Weights
from tests.helpers.onnx_probe import run_model

HEADS, KEY_HEADS, SIZE = 4, 2, 8
SHORT, LONG = MIN_TOKENS - 1, MIN_TOKENS
# Each remainder of a division by the number of parts, and longer texts.
LENGTHS = (1, 2, SHORT, *range(LONG, LONG + PARTS + 1), 250, 1000)


@pytest.fixture(scope="module", params=[None, 20], ids=["all tokens", "window"])
def window(request: pytest.FixtureRequest) -> int | None:
    return cast("int | None", request.param)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory, window: int | None) -> Path:
    folder = tmp_path_factory.mktemp("graph")
    g = GraphBuilder("attention", WeightStore(folder))
    mask = g.input(ATTENTION_MASK, ir.DataType.INT64, ["batch", "sequence"])
    inputs = [g.input(name, ir.DataType.FLOAT, ["batch", "sequence", width]) for name, width in widths()]
    context = GraphContext(g, {ATTENTION_MASK: mask}, cast("Weights", None), Fp32(), {})
    mixed = causal_attention(context, inputs, Heads(HEADS, KEY_HEADS, SIZE), window)
    g.output(g.op("Identity", [mixed]), "mixed", ir.DataType.FLOAT, ["batch", "sequence", HEADS * SIZE])
    ir.save(g.build(), folder / "attention.onnx")
    return folder / "attention.onnx"


def widths() -> Sequence[tuple[str, int]]:
    return [("q", HEADS * SIZE), ("k", KEY_HEADS * SIZE), ("v", KEY_HEADS * SIZE)]


def qkv(length: int) -> list[Float32]:
    """Queries, keys and values of a text."""
    rng = np.random.default_rng(length)
    return [rng.standard_normal((1, length, width)).astype(np.float32) for _, width in widths()]


def attention(graph: Path, texts: Sequence[Sequence[Float32]], padding: int = 0) -> list[Float32]:
    """Results of the texts of a batch, with more columns of padding than the longest needs."""
    lengths = [text[0].shape[1] for text in texts]
    columns = max(lengths) + padding
    mask = (np.arange(columns) < np.array(lengths)[:, None]).astype(np.int64)
    padded = [
        np.concatenate([np.pad(text[index], ((0, 0), (0, columns - text[index].shape[1]), (0, 0))) for text in texts])
        for index in range(3)
    ]
    feeds = {ATTENTION_MASK: mask, **dict(zip("qkv", padded, strict=True))}
    (mixed,) = run_model(str(graph), ["mixed"], feeds)
    return [row[:length] for row, length in zip(mixed, lengths, strict=True)]


def expected(text: Sequence[Float32], window: int | None) -> Float32:
    """Softmax over each token and those before it, at most `window` in all."""
    q, k, v = (value[0].reshape(len(value[0]), -1, SIZE).astype(np.float64).swapaxes(0, 1) for value in text)
    k, v = (np.repeat(value, HEADS // KEY_HEADS, axis=0) for value in (k, v))
    scores = q @ k.swapaxes(1, 2) / np.sqrt(SIZE)
    ages = np.arange(scores.shape[1])[:, None] - np.arange(scores.shape[2])
    scores[:, (ages < 0) | (ages >= (window or len(ages)))] = -np.inf
    weights = np.exp(scores - scores.max(axis=2, keepdims=True))
    mixed = weights / weights.sum(axis=2, keepdims=True) @ v
    return mixed.swapaxes(0, 1).reshape(-1, HEADS * SIZE).astype(np.float32)


@pytest.mark.parametrize("length", LENGTHS)
def test_attention_of_one_text(graph: Path, window: int | None, length: int) -> None:
    text = qkv(length)
    (mixed,) = attention(graph, [text])
    np.testing.assert_allclose(mixed, expected(text, window), atol=1e-5)


def test_attention_of_a_batch_is_that_of_its_texts(graph: Path) -> None:
    texts = [qkv(length) for length in LENGTHS]
    for text, mixed in zip(texts, attention(graph, texts, padding=5), strict=True):
        np.testing.assert_allclose(mixed, attention(graph, [text])[0], atol=1e-6)


def test_long_text_alone_is_in_parts(graph: Path) -> None:
    (branch,) = (node for node in ir.load(graph).graph if node.op_type == "If")
    parts, one = (
        [node.op_type for node in branch.attributes[name].as_graph()].count("GroupQueryAttention")
        for name in ("then_branch", "else_branch")
    )
    assert (parts, one) == (PARTS, 1)


def test_the_result_has_the_axes_of_the_batch(graph: Path) -> None:
    """Without them, onnxruntime cannot reuse the memory of any later value."""
    inferred = onnx.shape_inference.infer_shapes(onnx.load(graph))
    (shape,) = (value.type.tensor_type.shape for value in inferred.graph.value_info if value.name.endswith(".If"))
    assert [each.dim_param or each.dim_value for each in shape.dim] == ["batch", "sequence", HEADS * SIZE]
