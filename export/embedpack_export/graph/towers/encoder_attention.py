"""Attention of all tokens of a text to each other, in a layer of an encoder.

There are two forms. For models of short texts it is the standard operator with an additive mask, which computes the
scores of all pairs of tokens: for each head the square of the length. For longer texts it is MultiHeadAttention, whose
kernel computes them block by block (Dao et al. 2022, arXiv 2205.14135), but only without a mask. So the mask is a
channel of the heads: it is 1 in queries, and in keys the score that padding gets. The kernel copies its inputs, so it
computes a group of heads at a time. In both forms a padded key adds nothing to the sums.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from embedpack.pack.graph_io import ATTENTION_MASK
from embedpack_export.graph.builder import CONTRIB
from embedpack_export.graph.context import Activation
from embedpack_export.graph.towers.encoder_shape import EncoderPart, LearnedPositions, RotaryPositions
from embedpack_export.graph.towers.local_attention import local_attention
from embedpack_export.graph.towers.padding import PADDED, padded_tokens, padding_scores
from embedpack_export.graph.towers.relative_bias import relative_scores
from embedpack_export.graph.towers.rotary import text_rotation


def attention(part: EncoderPart, index: int, x: Activation, residual: Activation) -> ir.Value:
    """Append the sum of `residual` and the self-attention of a layer; float32 [batch, sequence, hidden]."""
    shape, names = part.shape, part.shape.names
    prefix, keys = names.layer.format(index), shape.key_heads * shape.head_size
    query = part.layer(f"{prefix}.{names.query}", shape.hidden, shape.hidden, bias=shape.biases.attention)
    key = part.layer(f"{prefix}.{names.key}", shape.hidden, keys, bias=shape.biases.attention)
    value = part.layer(f"{prefix}.{names.value}", shape.hidden, keys, bias=shape.biases.attention)
    output = part.layer(f"{prefix}.{names.mixed}", shape.hidden, shape.hidden, bias=shape.biases.mixed)
    site = f"{prefix}.attention.mixed"
    # Query heads that share a value head would have to share its shift and divisors.
    smoothing = part.context.smoothing(site, output, shifts=True) if keys == shape.hidden else None
    q, k, v = part.context.linears(x, query, key, value.smoothed(smoothing))
    if isinstance(shape.positions, RotaryPositions):
        turn = text_rotation(part.context, shape.positions.tables[index])
        q, k = turn.of(part.graph, q, shape.heads), turn.of(part.graph, k, shape.key_heads)
    mixed = _mixed(part, index, q, k, v)
    return part.context.sum_with(residual, Activation.smoothed(site, mixed, smoothing), output)


def attention_mask(part: EncoderPart) -> ir.Value:
    """Append what all layers with attention to all tokens share: the additive mask, or the channel of keys with it."""
    return part.context.once("mask", lambda: _scores(part) if part.shape.has_short_texts else _key_channel(part))


def _mixed(part: EncoderPart, index: int, q: ir.Value, k: ir.Value, v: ir.Value) -> ir.Value:
    """Append the mean of the values for each head; float32 [batch, sequence, hidden]."""
    shape, window = part.shape, part.shape.window(index)
    if window is not None:
        return local_attention(part, window, q, k, v)
    mask = attention_mask(part)
    if not shape.has_short_texts:
        return _blockwise(part, q, k, v, mask)
    heads = {"q_num_heads": shape.heads, "kv_num_heads": shape.key_heads}
    return part.graph.op("Attention", [q, k, v, mask], heads)


def _scores(part: EncoderPart) -> ir.Value:
    """Append the additive mask: that of padding, and the scores of relative positions."""
    mask = padding_scores(part.graph, part.context.inputs[ATTENTION_MASK])
    shape, positions = part.shape, part.shape.positions
    if shape.relative is None:
        return mask
    assert isinstance(positions, LearnedPositions)
    scores = relative_scores(part.context, shape.relative, shape.heads, positions.rows)
    return part.graph.op("Add", [mask, scores])


def _key_channel(part: EncoderPart) -> ir.Value:
    """Append the channel of keys: 0 for tokens, PADDED for padding once scaled; float32 [batch, sequence, heads, n].

    n is `_mask_channels`.
    """
    g, shape = part.graph, part.shape
    score = g.constant(PADDED * shape.head_size**0.5, np.float32)
    channel = g.op("Mul", [padded_tokens(part.context), score])
    column, width = g.op("Unsqueeze", [channel, g.constant([2, 3], np.int64)]), _mask_channels(part)
    return g.op("Expand", [column, g.constant([1, 1, shape.key_heads // shape.head_groups, width], np.int64)])


def _blockwise(part: EncoderPart, q: ir.Value, k: ir.Value, v: ir.Value, key_channel: ir.Value) -> ir.Value:
    """Append attention whose memory does not grow with the square of the length; float32 [batch, sequence, hidden]."""
    groups = [_group(part, index, [q, k, v], key_channel) for index in range(part.shape.head_groups)]
    return groups[0] if len(groups) == 1 else part.graph.op("Concat", groups, {"axis": 2})


def _group(part: EncoderPart, index: int, inputs: Sequence[ir.Value], key_channel: ir.Value) -> ir.Value:
    """Append the attention of a group of heads; float32 [batch, sequence, channels of the group]."""
    g, shape = part.graph, part.shape
    q, k, v = (_channels(part, x, index, heads) for x, heads in zip(inputs, shape.attention_heads, strict=True))
    query_channel = part.context.once("query_channel", lambda: _query_channel(part))
    queries = g.op("Concat", [_heads(part, q), query_channel], {"axis": 3})
    keys = g.op("Concat", [_heads(part, k), key_channel], {"axis": 3})
    values = v
    if shape.key_heads < shape.heads:
        keys, values = _for_all_heads(part, keys), _for_all_heads(part, _heads(part, v))
    merged = g.constant([0, 0, -1], np.int64)
    rows = [g.op("Reshape", [queries, merged]), g.op("Reshape", [keys, merged]), g.op("Reshape", [values, merged])]
    attributes = {"num_heads": shape.heads // shape.head_groups, "scale": shape.head_size**-0.5}
    return g.op("MultiHeadAttention", rows, attributes, domain=CONTRIB)


def _channels(part: EncoderPart, x: ir.Value, index: int, heads: int) -> ir.Value:
    """Append the channels of a group of heads of x, which has all `heads`."""
    if part.shape.head_groups == 1:
        return x
    g, width = part.graph, heads * part.shape.head_size // part.shape.head_groups
    start, end, axis = (g.constant([value], np.int64) for value in (index * width, (index + 1) * width, 2))
    return g.op("Slice", [x, start, end, axis])


def _query_channel(part: EncoderPart) -> ir.Value:
    """Append the channel of queries: n = `_mask_channels` values, in all 1; float32 [batch, sequence, heads, n]."""
    g, width, heads = part.graph, _mask_channels(part), part.shape.heads // part.shape.head_groups
    tokens = g.op("Shape", [part.context.inputs[ATTENTION_MASK]])
    sizes = g.op("Concat", [tokens, g.constant([heads, width], np.int64)], {"axis": 0})
    return g.op("Expand", [g.constant(1 / width, np.float32), sizes])


def _mask_channels(part: EncoderPart) -> int:
    """Number of channels that the mask takes.

    On GPUs only heads of a multiple of 8 channels have a kernel that keeps no scores of all pairs in memory.
    """
    return 8 if part.context.format.device == "cuda" else 1


def _heads(part: EncoderPart, x: ir.Value) -> ir.Value:
    """Append the split of channels into heads; float32 [batch, sequence, heads, head_size]."""
    return part.graph.op("Reshape", [x, part.graph.constant([0, 0, -1, part.shape.head_size], np.int64)])


def _for_all_heads(part: EncoderPart, x: ir.Value) -> ir.Value:
    """Append key or value heads repeated for the query heads that share them; float32 [batch, sequence, channels]."""
    g, shape = part.graph, part.shape
    groups = g.op("Unsqueeze", [x, g.constant([3], np.int64)])
    repeated = g.op("Expand", [groups, g.constant([1, 1, 1, shape.heads // shape.key_heads, 1], np.int64)])
    return g.op("Reshape", [repeated, g.constant([0, 0, -1], np.int64)])
