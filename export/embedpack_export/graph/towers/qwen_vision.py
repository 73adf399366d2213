"""Vision towers of Qwen2-VL and Qwen2.5-VL: patches, blocks of attention, a merger to the text's hidden size.

Qwen2.5-VL has windowed attention, RMS norms and gated networks; Qwen2-VL has full attention, layer norms and plain
networks.

Rows are patches in window order, without padding; without windows, they are token by token. Only windowed attention
gathers them into windows of equal size, with a mask. Full attention runs on the rows without a mask: then the memory
of its kernel does not grow with the square of their number. A run takes one image, so the vectors of an image do not
depend on other images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import onnx_ir as ir

from embedpack.errors import CheckpointError
from embedpack.pack.graph_io import (
    PATCH_POSITIONS,
    PATCHES,
    TOKEN_ROWS,
    WINDOW_MASK,
    WINDOW_ROWS,
    WINDOW_SLOTS,
    GraphInput,
    vision_inputs,
)
from embedpack_export.graph.builder import CONTRIB
from embedpack_export.graph.context import GELU_MINIMUM, Activation, GraphContext, LinearLayer, Stage, StagedModel
from embedpack_export.graph.formats.fp32 import exact_linear
from embedpack_export.graph.towers.gated_layers import GatedLayers, gated_product
from embedpack_export.graph.towers.norms import layer_norm, rms_norm
from embedpack_export.graph.towers.padding import padding_scores
from embedpack_export.graph.towers.rotary import RotaryTable, angles
from embedpack_export.quantization.channel_layout import ChannelGroups

ROPE_THETA = 10_000.0
EPSILON = 1e-6
# x sigmoid(1.702 x), and its lowest value.
QUICK_GELU, QUICK_GELU_MINIMUM = 1.702, -0.1637


@dataclass(frozen=True)
class VisionShape:
    """Sizes of a vision tower; `kernel` is the shape of a patch: channels, frames, height and width in pixels."""

    depth: int
    hidden: int
    heads: int
    intermediate: int
    kernel: tuple[int, int, int, int]
    merge: int
    window: int | None  # None: the tower of Qwen2-VL
    full_attention: frozenset[int]
    output: int

    @property
    def inputs(self) -> tuple[GraphInput, ...]:
        """Inputs of the graph."""
        slots = None if self.window is None else self.window**2 * self.merge**2
        return vision_inputs(prod(self.kernel), slots)


def _layer(context: GraphContext, module: str, inputs: int, outputs: int) -> LinearLayer:
    """A linear layer with bias."""
    return LinearLayer(
        context.weights.matrix(module, (outputs, inputs)), context.weights.vector(f"{module}.bias", outputs)
    )


def _embed(context: GraphContext, shape: VisionShape) -> ir.Value:
    """Append the patch embedding, float32 [patches, hidden]: a convolution with kernel = stride is a matrix product.

    It is float32 in every weights format: pixels have 8 bits to begin with, and the matrix is small.
    """
    weight = context.weights.flattened("visual.patch_embed.proj", (shape.hidden, *shape.kernel))
    patches = Activation("visual.patches", lambda: context.inputs[PATCHES])
    return exact_linear(context, patches, LinearLayer(weight, None))


def _attention(context: GraphContext, shape: VisionShape, index: int, x: Activation, residual: Activation) -> ir.Value:
    prefix = f"visual.blocks.{index}.attn"
    output = replace(_layer(context, f"{prefix}.proj", shape.hidden, shape.hidden), residual=residual)
    # Groups of one channel: each has a divisor of its own, but keeps its place in its head.
    choice = context.smoothing(f"{prefix}.mixed", output, groups=ChannelGroups(shape.hidden, 1, 1))
    layout = None if choice is None else choice.layout
    whole = _layer(context, f"{prefix}.qkv", shape.hidden, 3 * shape.hidden)
    divisor = None
    if layout is not None:
        divisor = np.concatenate([np.ones(2 * shape.hidden, np.float32), layout.divisors])
    qkv = LinearLayer(whole.weight, whole.bias, divisor)
    q, k, v = _queries_keys_values(context, shape, x, qkv)
    q, k = _rotated(context, shape, q), _rotated(context, shape, k)
    mix = _full if shape.window is None or index in shape.full_attention else _windowed
    mixed = mix(context, shape, (q, k, v))
    return context.linears(Activation(f"{prefix}.mixed", lambda: mixed, layout=layout), output)[0]


def _queries_keys_values(
    context: GraphContext, shape: VisionShape, x: Activation, qkv: LinearLayer
) -> Sequence[ir.Value]:
    if context.format.in_parts:
        parts = tuple(slice(part * shape.hidden, (part + 1) * shape.hidden) for part in range(3))
        return context.linear_parts(x, replace(qkv, parts=parts))[0]
    return context.graph.ops("Split", context.linears(x, qkv), {"axis": -1, "num_outputs": 3}, outputs=3)


def _rotated(context: GraphContext, shape: VisionShape, x: ir.Value) -> ir.Value:
    """Apply rotary positions to queries or keys [patches, hidden]."""
    g, size = context.graph, shape.hidden // shape.heads
    table = RotaryTable(size // 2, ROPE_THETA)
    # The first half of the channels rotates with the height, the second with the width, at the same frequencies.
    half = table.frequencies()
    both = np.zeros((2, 1, 1, size // 2), np.float32)
    both[0, ..., : size // 4], both[1, ..., size // 4 :] = half[0], half[0]
    phases = context.once("angles", lambda: angles(g, context.inputs[PATCH_POSITIONS], both))
    cos, sin = context.once("cos", lambda: g.op("Cos", [phases])), context.once("sin", lambda: g.op("Sin", [phases]))
    batch = g.op("Unsqueeze", [x, g.constant([0], np.int64)])
    rotated = g.op("RotaryEmbedding", [batch, cos, sin], {"num_heads": shape.heads, "interleaved": 0})
    return g.op("Squeeze", [rotated, g.constant([0], np.int64)])


def _full(context: GraphContext, shape: VisionShape, qkv: tuple[ir.Value, ...]) -> ir.Value:
    g = context.graph
    batch = [g.op("Unsqueeze", [value, g.constant([0], np.int64)]) for value in qkv]
    mixed = g.op("MultiHeadAttention", batch, {"num_heads": shape.heads}, domain=CONTRIB)
    return g.op("Squeeze", [mixed, g.constant([0], np.int64)])


def _windowed(context: GraphContext, shape: VisionShape, qkv: tuple[ir.Value, ...]) -> ir.Value:
    g, inputs = context.graph, context.inputs
    windows = [g.op("Gather", [value, inputs[WINDOW_ROWS]], {"axis": 0}) for value in qkv]
    if context.format.device == "cuda":
        mask, heads = inputs[WINDOW_MASK], {"num_heads": shape.heads}
        mixed = g.op("MultiHeadAttention", [*windows, None, mask], heads, domain=CONTRIB)
    else:
        scores = context.once("window_scores", lambda: padding_scores(g, inputs[WINDOW_MASK]))
        heads = {"q_num_heads": shape.heads, "kv_num_heads": shape.heads}
        mixed = g.op("Attention", [*windows, scores], heads)
    slots = g.op("Reshape", [mixed, g.constant([-1, shape.hidden], np.int64)])
    return g.op("Gather", [slots, inputs[WINDOW_SLOTS]], {"axis": 0})


def _norm(context: GraphContext, shape: VisionShape, module: str, x: ir.Value) -> Activation:
    norm = layer_norm if shape.window is None else rms_norm
    return norm(context, module, x, shape.hidden, EPSILON)


def _feed_forward(
    context: GraphContext, shape: VisionShape, prefix: str, x: Activation, residual: Activation
) -> ir.Value:
    if shape.window is None:
        return _plain_network(context, shape, prefix, x, residual)
    down = replace(_layer(context, f"{prefix}.down_proj", shape.intermediate, shape.hidden), residual=residual)
    gate = _layer(context, f"{prefix}.gate_proj", shape.hidden, shape.intermediate)
    up = _layer(context, f"{prefix}.up_proj", shape.hidden, shape.intermediate)
    return gated_product(context, x, f"{prefix}.product", GatedLayers(gate, up, down))


def _plain_network(
    context: GraphContext, shape: VisionShape, prefix: str, x: Activation, residual: Activation
) -> ir.Value:
    """Append the network of Qwen2-VL, with QuickGELU (Hendrycks and Gimpel 2016, arXiv 1606.08415)."""
    g = context.graph
    second = replace(_layer(context, f"{prefix}.fc2", shape.intermediate, shape.hidden), residual=residual)
    (first,) = context.linears(x, _layer(context, f"{prefix}.fc1", shape.hidden, shape.intermediate))
    active = Activation(
        f"{prefix}.active",
        lambda: g.op("QuickGelu", [first], {"alpha": QUICK_GELU}, domain=CONTRIB),
        lower_bound=QUICK_GELU_MINIMUM,
    )
    return context.linears(active, second)[0]


def _merge(context: GraphContext, shape: VisionShape, x: ir.Value) -> ir.Value:
    """Append the merger of patch groups to tokens in the order of the image; float32 [image_tokens, output]."""
    g, inner = context.graph, shape.hidden * shape.merge**2
    normed = _norm(context, shape, "visual.merger.ln_q", x)
    groups = Activation(
        "visual.merger.groups", lambda: g.op("Reshape", [normed.value, g.constant([-1, inner], np.int64)])
    )
    (first,) = context.linears(groups, _layer(context, "visual.merger.mlp.0", inner, inner))
    active = Activation("visual.merger.active", lambda: g.op("Gelu", [first]), lower_bound=GELU_MINIMUM)
    (tokens,) = context.linears(active, _layer(context, "visual.merger.mlp.2", inner, shape.output))
    return tokens if shape.window is None else g.op("Gather", [tokens, context.inputs[TOKEN_ROWS]], {"axis": 0})


def vision_tower(shape: VisionShape) -> StagedModel:
    """Build the tower; raises CheckpointError if the sizes contradict each other."""
    if shape.hidden % shape.heads or (shape.hidden // shape.heads) % 8:
        raise CheckpointError(
            f"config.json: {shape.hidden} channels in {shape.heads} attention heads of the vision tower; only head "
            "sizes that are multiples of 8 can be exported"
        )

    def embed(context: GraphContext, _: ir.Value | None) -> ir.Value:
        return _embed(context, shape)

    def block(index: int) -> Stage:
        def stage(context: GraphContext, x: ir.Value | None) -> ir.Value:
            assert x is not None
            g, prefix = context.graph, f"visual.blocks.{index}"
            first = _norm(context, shape, f"{prefix}.norm1", x)
            before = Activation.of(f"{prefix}.hidden", x)
            x = g.op("Add", [x, _attention(context, shape, index, first, before)])
            second = _norm(context, shape, f"{prefix}.norm2", x)
            between = Activation.of(f"{prefix}.attended", x)
            return g.op("Add", [x, _feed_forward(context, shape, f"{prefix}.mlp", second, between)])

        return stage

    def merge(context: GraphContext, x: ir.Value | None) -> ir.Value:
        assert x is not None
        return _merge(context, shape, x)

    stages = (embed, *(block(index) for index in range(shape.depth)), merge)
    return StagedModel(shape.inputs, ("rows", shape.hidden), stages)
