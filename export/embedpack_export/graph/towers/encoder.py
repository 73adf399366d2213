"""Bidirectional transformer encoders with learned positions: embeddings, attention, post-norm layers (BERT, MPNet).

The norms are Add + LayerNormalization, not the fused SkipLayerNormalization, whose CPU kernel is slower; q, k and v are
separate products of one quantized activation; attention is the standard operator with an additive mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from embedpack.errors import CheckpointError
from embedpack.pack.graph_io import ATTENTION_MASK, INPUT_IDS, TEXT_INPUTS, TOKEN_AXES
from embedpack.vectors.arrays import Float32
from embedpack_export.graph.builder import GraphBuilder
from embedpack_export.graph.context import GELU_MINIMUM, Activation, GraphContext, LinearLayer, Stage, StagedModel
from embedpack_export.graph.towers.relative_bias import RelativeBias, relative_scores

# Score of padded keys, whose exponential is exactly 0 in float32.
MASKED = -1e4

ACTIVATIONS: Mapping[str, str] = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}


@dataclass(frozen=True)
class EncoderNames:
    """Names of a layer's modules in the checkpoint, those of BERT by default; all but `layer` follow its name."""

    layer: str = "encoder.layer.{}"
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    mixed: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    inner: str = "intermediate.dense"
    outer: str = "output.dense"
    output_norm: str = "output.LayerNorm"

    @property
    def attention(self) -> tuple[str, str, str]:
        """Names of the projections to queries, keys and values."""
        return self.query, self.key, self.value


@dataclass(frozen=True)
class EncoderShape:
    """Sizes and options of an encoder."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    intermediate: int
    activation: str
    epsilon: float
    positions: int  # rows of the position table
    first_position: int  # row of the first token in the position table
    token_types: int  # rows of the table of token types; 0: the model has none
    names: EncoderNames = EncoderNames()
    relative: RelativeBias | None = None  # bias of attention scores by relative position, if the model has one


@dataclass(frozen=True)
class EncoderPart:
    """The graph under construction and the shape of the encoder, for the functions that append its parts."""

    context: GraphContext
    shape: EncoderShape

    @property
    def graph(self) -> GraphBuilder:
        """The graph under construction."""
        return self.context.graph

    def layer(self, module: str, inputs: int, outputs: int) -> LinearLayer:
        """A linear layer with bias."""
        weights = self.context.weights
        return LinearLayer(weights.matrix(module, (outputs, inputs)), weights.vector(f"{module}.bias", outputs))

    def norm(self, module: str, x: ir.Value) -> Activation:
        """LayerNormalization over the last axis, which can also output its result shifted and scaled."""
        weight, bias = (
            self.context.weights.vector(f"{module}.{name}", self.shape.hidden) for name in ("weight", "bias")
        )

        def normalized(weight: Float32, bias: Float32, suffix: str, group: str) -> ir.Value:
            scale = self.graph.vector(f"{module}.weight{suffix}", weight, group)
            offset = self.graph.vector(f"{module}.bias{suffix}", bias, group)
            attributes = {"axis": -1, "epsilon": self.shape.epsilon}
            return self.graph.op("LayerNormalization", [x, scale, offset], attributes)

        def rescale(shift: Float32, scale: Float32, group: str) -> ir.Value:
            return normalized(weight / scale, (bias - shift) / scale, ".rescaled", group)

        return Activation(module, lambda: normalized(weight, bias, "", "shared"), rescale)


def embeddings(part: EncoderPart, input_ids: ir.Value) -> ir.Value:
    """Append word + position + token type 0 embeddings before their norm; float32 [batch, sequence, hidden].

    Positions are counted from the first token, since batches are padded on the right. Token type 0, the only one in
    use, is added to the position table if the model has token types.
    """
    g, shape = part.graph, part.shape
    words = part.context.weights.matrix("embeddings.word_embeddings", (shape.vocabulary, shape.hidden))
    positions = part.context.weights.matrix("embeddings.position_embeddings", (shape.positions, shape.hidden))
    type_row = np.zeros(shape.hidden, np.float32)
    if shape.token_types:
        types = part.context.weights.matrix("embeddings.token_type_embeddings", (shape.token_types, shape.hidden))
        type_row = next(types.chunks())[0]
    table = g.weight(
        "embeddings.position_embeddings.weight",
        "shared",
        (chunk + type_row for chunk in positions.chunks()),
        np.float32,
        positions.shape,
    )
    length = g.op("Shape", [input_ids], {"start": 1, "end": 2})
    first = g.constant([shape.first_position], np.int64)
    rows = g.op("Slice", [table, first, g.op("Add", [length, first]), g.constant([0], np.int64)])
    return g.op("Add", [part.context.table(words, input_ids), rows])


def padding_mask(g: GraphBuilder, attention_mask: ir.Value) -> ir.Value:
    """Additive attention mask float32 [batch, 1, sequence, sequence]: 0 for tokens, MASKED for padding.

    It is expanded once for all layers, since the attention operator does not broadcast it over the queries.
    """
    padded = g.op("Sub", [g.constant(1, np.float32), g.op("Cast", [attention_mask], {"to": int(ir.DataType.FLOAT)})])
    row = g.op("Unsqueeze", [g.op("Mul", [padded, g.constant(MASKED, np.float32)]), g.constant([1, 2], np.int64)])
    batch = g.op("Shape", [attention_mask], {"start": 0, "end": 1})
    length = g.op("Shape", [attention_mask], {"start": 1, "end": 2})
    full = g.op("Concat", [batch, g.constant([1], np.int64), length, length], {"axis": 0})
    return g.op("Expand", [row, full])


def post_norm_layer(part: EncoderPart, prefix: str, x: Activation, mask: ir.Value) -> ir.Value:
    """Append a layer in BERT's order: h = norm(x + attention(x)), then h + feed_forward(h) without its norm."""
    g, shape, names, linears = part.graph, part.shape, part.shape.names, part.context.linears
    query_key_value = [part.layer(f"{prefix}.{name}", shape.hidden, shape.hidden) for name in names.attention]
    heads = {"q_num_heads": shape.heads, "kv_num_heads": shape.heads}
    mixed = g.op("Attention", [*linears(x, *query_key_value), mask], heads)
    output = replace(part.layer(f"{prefix}.{names.mixed}", shape.hidden, shape.hidden), residual=x)
    (attended,) = linears(Activation(f"{prefix}.attention.mixed", lambda: mixed), output)
    x = part.norm(f"{prefix}.{names.attention_norm}", g.op("Add", [attended, x.value]))
    (inner,) = linears(x, part.layer(f"{prefix}.{names.inner}", shape.hidden, shape.intermediate))
    active = Activation(
        f"{prefix}.intermediate.active",
        lambda: g.op("Gelu", [inner], {"approximate": ACTIVATIONS[shape.activation]}),
        lower_bound=GELU_MINIMUM,
    )
    output = replace(part.layer(f"{prefix}.{names.outer}", shape.intermediate, shape.hidden), residual=x)
    (outer,) = linears(active, output)
    return g.op("Add", [outer, x.value])


def attention_mask(part: EncoderPart) -> ir.Value:
    """Append the additive mask of all layers: that of padding, and the scores of relative positions."""
    mask = padding_mask(part.graph, part.context.inputs[ATTENTION_MASK])
    if part.shape.relative is None:
        return mask
    scores = relative_scores(part.context, part.shape.relative, part.shape.heads, part.shape.positions)
    return part.graph.op("Add", [mask, scores])


def bidirectional_encoder(shape: EncoderShape) -> StagedModel:
    """Build the encoder.

    A stage ends before the last norm of its layer; the next stage begins with it, so that the norm can rescale its
    output for the layers that read it.

    Raises:
        CheckpointError: the heads do not divide the hidden size.
    """
    if shape.hidden % shape.heads:
        raise CheckpointError(
            f"config.json: {shape.heads} heads do not divide the hidden size {shape.hidden}; "
            "restore the config.json of the model"
        )
    names = shape.names
    layers = [names.layer.format(index) for index in range(shape.layers)]
    norms = ["embeddings.LayerNorm", *(f"{layer}.{names.output_norm}" for layer in layers)]

    def embed(context: GraphContext, _: ir.Value | None) -> ir.Value:
        return embeddings(EncoderPart(context, shape), context.inputs[INPUT_IDS])

    def layer(index: int) -> Stage:
        def stage(context: GraphContext, x: ir.Value | None) -> ir.Value:
            assert x is not None
            part = EncoderPart(context, shape)
            mask = context.once("mask", lambda: attention_mask(part))
            return post_norm_layer(part, layers[index], part.norm(norms[index], x), mask)

        return stage

    def last_norm(context: GraphContext, x: ir.Value | None) -> ir.Value:
        assert x is not None
        return EncoderPart(context, shape).norm(norms[-1], x).value

    stages = (embed, *(layer(index) for index in range(shape.layers)), last_norm)
    return StagedModel(TEXT_INPUTS, (*TOKEN_AXES, shape.hidden), stages)
