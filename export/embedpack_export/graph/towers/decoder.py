"""Causal decoders: RMSNorm, grouped-query attention with rotary positions, SwiGLU (Llama, Qwen2, Qwen3, Mistral)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from embedpack.errors import CheckpointError
from embedpack.pack.graph_io import (
    IMAGE_EMBEDS,
    IMAGE_INDEX,
    IMAGE_INPUTS,
    INPUT_IDS,
    POSITION_IDS,
    TEXT_INPUTS,
    TOKEN_AXES,
)
from embedpack_export.graph.builder import GraphBuilder
from embedpack_export.graph.context import Activation, GraphContext, LinearLayer, Stage, StagedModel
from embedpack_export.graph.towers.causal_attention import Heads, causal_attention
from embedpack_export.graph.towers.gated_layers import GatedLayers, gated_product
from embedpack_export.graph.towers.norms import rms_norm
from embedpack_export.graph.towers.rope_scaling import RopeScaling
from embedpack_export.graph.towers.rotary import RotaryTable, Rotation, angles, rotation, text_rotation
from embedpack_export.quantization.channel_layout import ChannelGroups

LINEARS_OF_A_LAYER = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
Windows = tuple[int | None, ...]


@dataclass(frozen=True)
class DecoderShape:
    """Sizes and options of a decoder."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    epsilon: float
    rope_theta: float
    biases: bool  # true if q, k and v have a bias
    qk_norm: bool = False  # true if each head of q and k has a norm (Henry et al. 2020, arXiv 2010.04245)
    # Number of last tokens that a token attends to in each layer, itself included, None: all; empty: all in each layer.
    windows: Windows = ()
    rope_scaling: RopeScaling | None = None
    # Number of rotary frequencies for the positions in time, height and width (M-RoPE, Qwen2-VL, arXiv 2409.12191);
    # empty for plain positions.
    sections: tuple[int, ...] = ()
    images: bool = False  # true if rows may contain image tokens


@dataclass(frozen=True)
class DecoderPart:
    """The graph under construction and the shape of the decoder, for the functions that append its parts."""

    context: GraphContext
    shape: DecoderShape

    @property
    def graph(self) -> GraphBuilder:
        """The graph under construction."""
        return self.context.graph

    def layer(self, module: str, inputs: int, outputs: int, *, bias: bool = False) -> LinearLayer:
        """A linear layer; `bias`: whether the checkpoint has its bias, as an adapter may bring one."""
        weights = self.context.weights
        vector = weights.vector(f"{module}.bias", outputs) if bias else weights.new_bias(module, outputs)
        return LinearLayer(weights.matrix(module, (outputs, inputs)), vector)

    def norm(self, module: str, x: ir.Value) -> Activation:
        """RMSNorm over the last axis, which can also output its result shifted and scaled."""
        return rms_norm(self.context, module, x, self.shape.hidden, self.shape.epsilon)


def embeddings(part: DecoderPart) -> ir.Value:
    """Append word embeddings and, in their positions, image tokens; float32 [batch, sequence, hidden]."""
    shape, inputs = part.shape, part.context.inputs
    words = part.context.weights.table("embed_tokens", (shape.vocabulary, shape.hidden))
    embedded = part.context.table(words, inputs[INPUT_IDS])
    if not shape.images:
        return embedded
    return part.graph.op("ScatterND", [embedded, inputs[IMAGE_INDEX], inputs[IMAGE_EMBEDS]])


def attention(part: DecoderPart, index: int, x: Activation, residual: Activation) -> ir.Value:
    """Append the causal self-attention of a layer, to be added to `residual`; float32 [batch, sequence, hidden]."""
    prefix = f"layers.{index}.self_attn"
    g, shape, context = part.graph, part.shape, part.context
    inner, kv_inner = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    output = replace(part.layer(f"{prefix}.o_proj", inner, shape.hidden), residual=residual)
    groups = ChannelGroups(shape.kv_heads, shape.heads // shape.kv_heads, shape.head_size)
    choice = context.smoothing(f"{prefix}.mixed", output, groups=groups)
    layout = None if choice is None else choice.layout
    query = part.layer(f"{prefix}.q_proj", shape.hidden, inner, bias=shape.biases)
    key = part.layer(f"{prefix}.k_proj", shape.hidden, kv_inner, bias=shape.biases)
    value = part.layer(f"{prefix}.v_proj", shape.hidden, kv_inner, bias=shape.biases)
    if layout is not None:
        value = LinearLayer(value.weight, value.bias, groups.first_members(layout.divisors))
    q, k, v = context.linears(x, query, key, value)
    if shape.qk_norm:
        q, k = (_head_norm(part, f"{prefix}.{name}_norm", heads) for name, heads in (("q", q), ("k", k)))
    turn = _rotation(part)
    q, k = turn.of(g, q, shape.heads), turn.of(g, k, shape.kv_heads)
    window = shape.windows[index] if shape.windows else None
    heads = Heads(shape.heads, shape.kv_heads, shape.head_size)
    mixed = causal_attention(context, (q, k, v), heads, window)
    return context.linears(Activation(f"{prefix}.mixed", lambda: mixed, layout=layout), output)[0]


def feed_forward(part: DecoderPart, prefix: str, x: Activation, residual: Activation) -> ir.Value:
    """Append the feed-forward network, to be added to `residual`; float32 [batch, sequence, hidden]."""
    shape, context = part.shape, part.context
    down = replace(part.layer(f"{prefix}.down_proj", shape.intermediate, shape.hidden), residual=residual)
    gate = part.layer(f"{prefix}.gate_proj", shape.hidden, shape.intermediate)
    up = part.layer(f"{prefix}.up_proj", shape.hidden, shape.intermediate)
    return gated_product(context, x, f"{prefix}.product", GatedLayers(gate, up, down))


def _head_norm(part: DecoderPart, module: str, x: ir.Value) -> ir.Value:
    """Append the norm of each head; float32 [batch, sequence, heads x head_size]."""
    g, size = part.graph, part.shape.head_size
    heads = g.op("Reshape", [x, g.constant([0, 0, -1, size], np.int64)])
    normalized = rms_norm(part.context, module, heads, size, part.shape.epsilon).value
    return g.op("Reshape", [normalized, g.constant([0, 0, -1], np.int64)])


def _rotation(part: DecoderPart) -> Rotation:
    """The rotation of queries and keys."""
    shape, context = part.shape, part.context
    table = RotaryTable(shape.head_size, shape.rope_theta, shape.sections, shape.rope_scaling)
    if not shape.sections:
        return text_rotation(context, table)
    return rotation(context, table, lambda: angles(part.graph, context.inputs[POSITION_IDS], table.frequencies()))


def causal_decoder(shape: DecoderShape) -> StagedModel:
    """Build the decoder with its last norm; raises CheckpointError if the sizes contradict each other."""
    if shape.heads % shape.kv_heads:
        raise CheckpointError(
            f"config.json: {shape.heads} heads cannot share {shape.kv_heads} key and value heads; "
            "restore the config.json of the model"
        )
    if shape.head_size % 8:
        raise CheckpointError(
            f"config.json: head size {shape.head_size}; it must be a multiple of 8, others cannot be exported"
        )
    if shape.sections and sum(shape.sections) != shape.head_size // 2:
        raise CheckpointError(
            f"config.json: mrope_section {list(shape.sections)} must add up to {shape.head_size // 2}, "
            "half the head size"
        )

    def embed(context: GraphContext, _: ir.Value | None) -> ir.Value:
        return embeddings(DecoderPart(context, shape))

    def layer(index: int) -> Stage:
        def stage(context: GraphContext, x: ir.Value | None) -> ir.Value:
            assert x is not None
            part, prefix = DecoderPart(context, shape), f"layers.{index}"
            first, before = part.norm(f"{prefix}.input_layernorm", x), Activation.of(f"{prefix}.hidden", x)
            x = part.graph.op("Add", [x, attention(part, index, first, before)])
            second, between = part.norm(f"{prefix}.post_attention_layernorm", x), Activation.of(f"{prefix}.attended", x)
            return part.graph.op("Add", [x, feed_forward(part, f"{prefix}.mlp", second, between)])

        return stage

    def last_norm(context: GraphContext, x: ir.Value | None) -> ir.Value:
        assert x is not None
        return DecoderPart(context, shape).norm("norm", x).value

    inputs = (*TEXT_INPUTS, *IMAGE_INPUTS) if shape.images else TEXT_INPUTS
    stages = (embed, *(layer(index) for index in range(shape.layers)), last_norm)
    return StagedModel(inputs, (*TOKEN_AXES, shape.hidden), stages, causal=True)
