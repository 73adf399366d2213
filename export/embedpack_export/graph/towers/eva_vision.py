"""The vision tower EVA02 (Fang et al. 2023, arXiv 2303.11331) as in jina-clip-v2: an image to one vector.

Rows are a class token and the patches in row-major order. Queries and keys of patches rotate with their rows and
columns; the class token does not. A run takes one image, so its vector does not depend on other images.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from embedpack.errors import CheckpointError
from embedpack.pack.graph_io import PATCHES, patches_input
from embedpack.vectors.arrays import Float32
from embedpack_export.graph.builder import CONTRIB
from embedpack_export.graph.context import Activation, GraphContext, LinearLayer, Stage, StagedModel
from embedpack_export.graph.formats.fp32 import exact_linear
from embedpack_export.graph.towers.gated_layers import silu
from embedpack_export.graph.towers.norms import layer_norm
from embedpack_export.graph.towers.rotary import RotaryTable, Rotation

ROPE_THETA = 10_000.0
EPSILON = 1e-6
CHANNELS = 3


@dataclass(frozen=True)
class EvaShape:
    """Sizes of a vision tower.

    Attributes:
        grid: patches along each side of an image.
        trained_grid: the same in the training of the rotary positions, which larger grids are scaled to.
        prefix: beginning of the names of all tensors.
    """

    depth: int
    hidden: int
    heads: int
    intermediate: int
    patch_size: int
    grid: int
    trained_grid: int
    prefix: str

    @property
    def rows(self) -> int:
        """Number of rows: the class token and the patches."""
        return self.grid**2 + 1

    @property
    def values(self) -> int:
        """Values of a patch: those of red, green and blue of each pixel."""
        return CHANNELS * self.patch_size**2

    def angles(self) -> Float32:
        """Rotary angles float32 [1, rows, head_size / 2]: by the row of a patch, then by its column; 0 of the class."""
        frequencies = RotaryTable(self.hidden // self.heads // 2, ROPE_THETA).frequencies()[0, 0, 0]
        steps = np.arange(self.grid, dtype=np.float32) / np.float32(self.grid) * np.float32(self.trained_grid)
        products = steps[:, None] * frequencies
        of_rows, of_columns = np.repeat(products, self.grid, axis=0), np.tile(products, (self.grid, 1))
        of_patches = np.concatenate([of_rows, of_columns], axis=1)
        return np.concatenate([np.zeros_like(of_patches[:1]), of_patches])[None]


@dataclass(frozen=True)
class _Part:
    """The graph under construction and the shape of the tower."""

    context: GraphContext
    shape: EvaShape

    def layer(self, module: str, inputs: int, outputs: int, bias: str | None = "{}.bias") -> LinearLayer:
        """A linear layer; `bias`: name of its bias, None: it has none."""
        weights, name = self.context.weights, f"{self.shape.prefix}{module}"
        vector = None if bias is None else weights.vector(bias.format(name), outputs)
        return LinearLayer(weights.matrix(name, (outputs, inputs)), vector)

    def norm(self, module: str, x: ir.Value, size: int) -> Activation:
        """A layer norm."""
        return layer_norm(self.context, f"{self.shape.prefix}{module}", x, size, EPSILON)

    def site(self, name: str, value: ir.Value) -> Activation:
        """An existing value as the input of linear layers."""
        return Activation.of(f"{self.shape.prefix}{name}", value)


def _embed(part: _Part) -> ir.Value:
    """Append the class token and the patches with their positions, float32 [rows, hidden].

    The convolution, with kernel = stride, is a matrix product; it is float32 in every weights format.
    """
    context, shape, g = part.context, part.shape, part.context.graph
    weights, module = context.weights, f"{shape.prefix}patch_embed.proj"
    kernel = (shape.hidden, CHANNELS, shape.patch_size, shape.patch_size)
    positions = weights.array(f"{shape.prefix}pos_embed", (1, shape.rows, shape.hidden))[0]
    first = weights.array(f"{shape.prefix}cls_token", (1, 1, shape.hidden))[0] + positions[:1]
    rest = positions[1:] + weights.vector(f"{module}.bias", shape.hidden)
    patches = Activation(f"{shape.prefix}patches", lambda: context.inputs[PATCHES])
    product = exact_linear(context, patches, LinearLayer(weights.flattened(module, kernel), None))
    moved = g.op("Add", [product, g.vector(f"{shape.prefix}positions", rest)])
    return g.op("Concat", [g.vector(f"{shape.prefix}class", first), moved], {"axis": 0})


def _rotation(part: _Part) -> Rotation:
    g, angles = part.context.graph, part.shape.angles()
    cos, sin = (g.vector(f"{part.shape.prefix}{name.__name__}", name(angles)) for name in (np.cos, np.sin))
    return Rotation(cos, sin, interleaved=True)


def _attention(part: _Part, block: str, x: Activation, residual: Activation) -> ir.Value:
    context, g, hidden = part.context, part.context.graph, part.shape.hidden
    # Keys have no bias; the other two stand beside the matrices of their layers.
    layers = (
        part.layer(f"{block}.q_proj", hidden, hidden, f"{part.shape.prefix}{block}.q_bias"),
        part.layer(f"{block}.k_proj", hidden, hidden, None),
        part.layer(f"{block}.v_proj", hidden, hidden, f"{part.shape.prefix}{block}.v_bias"),
    )
    batch = [g.op("Unsqueeze", [value, g.constant([0], np.int64)]) for value in context.linears(x, *layers)]
    rotation = context.once("rotation", lambda: _rotation(part))
    q, k = (rotation.of(g, value, part.shape.heads) for value in batch[:2])
    mixed = g.op("MultiHeadAttention", [q, k, batch[2]], {"num_heads": part.shape.heads}, domain=CONTRIB)
    rows = g.op("Squeeze", [mixed, g.constant([0], np.int64)])
    normed = part.norm(f"{block}.inner_attn_ln", rows, hidden)
    return context.linears(normed, replace(part.layer(f"{block}.proj", hidden, hidden), residual=residual))[0]


def _feed_forward(part: _Part, block: str, x: Activation, residual: Activation) -> ir.Value:
    """Append w3(norm(silu(w1(x)) * w2(x))), to be added to `residual`."""
    context, g, hidden, inner = part.context, part.context.graph, part.shape.hidden, part.shape.intermediate
    gate, up = (part.layer(f"{block}.{name}", hidden, inner) for name in ("w1", "w2"))
    gated, upper = context.linears(x, gate, up)
    normed = part.norm(f"{block}.ffn_ln", g.op("Mul", [silu(g, gated), upper]), inner)
    return context.linears(normed, replace(part.layer(f"{block}.w3", inner, hidden), residual=residual))[0]


def _pool(part: _Part, x: ir.Value) -> ir.Value:
    """Append the class token after the last norm, float32 [1, hidden]."""
    g = part.context.graph
    first = g.op("Slice", [x, g.constant([0], np.int64), g.constant([1], np.int64), g.constant([0], np.int64)])
    return part.norm("norm", first, part.shape.hidden).value


def eva_tower(shape: EvaShape) -> StagedModel:
    """Build the tower; raises CheckpointError if the sizes contradict each other."""
    if shape.hidden % shape.heads or (shape.hidden // shape.heads) % 8:
        raise CheckpointError(
            f"config.json: {shape.hidden} channels in {shape.heads} attention heads of the vision tower; only head "
            "sizes that are multiples of 8 can be exported"
        )

    def embed(context: GraphContext, _: ir.Value | None) -> ir.Value:
        return _embed(_Part(context, shape))

    def block(index: int) -> Stage:
        def stage(context: GraphContext, x: ir.Value | None) -> ir.Value:
            assert x is not None
            g, part, name = context.graph, _Part(context, shape), f"blocks.{index}"
            first = part.norm(f"{name}.norm1", x, shape.hidden)
            attended = _attention(part, f"{name}.attn", first, part.site(f"{name}.hidden", x))
            x = g.op("Add", [x, attended])
            second = part.norm(f"{name}.norm2", x, shape.hidden)
            return g.op("Add", [x, _feed_forward(part, f"{name}.mlp", second, part.site(f"{name}.attended", x))])

        return stage

    def pool(context: GraphContext, x: ir.Value | None) -> ir.Value:
        assert x is not None
        return _pool(_Part(context, shape), x)

    stages = (embed, *(block(index) for index in range(shape.depth)), pool)
    return StagedModel((patches_input(shape.values),), ("rows", shape.hidden), stages)
