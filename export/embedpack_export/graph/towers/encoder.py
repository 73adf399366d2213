"""Bidirectional transformer encoders, from BERT to ModernBERT, by the options of `EncoderShape`.

The norms are Add + LayerNormalization, not the fused SkipLayerNormalization, whose CPU kernel is slower; q, k and v are
separate products of one quantized activation.
"""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from embedpack.pack.graph_io import TEXT_INPUTS, TOKEN_AXES, TOKEN_TYPES_INPUT
from embedpack_export.graph.context import Activation, GraphContext, Stage, StagedModel
from embedpack_export.graph.towers.encoder_attention import attention, attention_mask
from embedpack_export.graph.towers.encoder_layers import embeddings, feed_forward
from embedpack_export.graph.towers.encoder_shape import EncoderPart, EncoderShape


def bidirectional_encoder(shape: EncoderShape) -> StagedModel:
    """Build the encoder; raises CheckpointError if the sizes contradict each other."""
    shape.check()
    post_norm = shape.order == "post-norm"

    def embed(context: GraphContext, _: ir.Value | None) -> ir.Value:
        return embeddings(EncoderPart(context, shape))

    def layer(index: int) -> Stage:
        def stage(context: GraphContext, x: ir.Value | None) -> ir.Value:
            assert x is not None
            # A group of heads saves memory on CPUs; on GPUs few large kernels are faster.
            part = EncoderPart(context, replace(shape, in_head_groups=context.format.device == "cpu"))
            if shape.window(index) is None:
                attention_mask(part)
            return post_norm_layer(part, index, x) if post_norm else pre_norm_layer(part, index, x)

        return stage

    def last_norm(context: GraphContext, x: ir.Value | None) -> ir.Value:
        assert x is not None
        names = shape.names
        last = _output_norm(shape, shape.layers - 1) if post_norm else names.final_norm
        assert last is not None
        return EncoderPart(context, shape).norm(last, x).value

    stages = (embed, *(layer(index) for index in range(shape.layers)), last_norm)
    inputs = (*TEXT_INPUTS, TOKEN_TYPES_INPUT) if shape.reads_token_types else TEXT_INPUTS
    return StagedModel(inputs, (*TOKEN_AXES, shape.hidden), stages)


def post_norm_layer(part: EncoderPart, index: int, x: ir.Value) -> ir.Value:
    """Append a layer in BERT's order: h = norm(x + attention(x)), then h + network(h) without its norm.

    It begins with the last norm of the layer before, so that this can rescale its output for the layers that read it.
    """
    names = part.shape.names
    norm = _output_norm(part.shape, index - 1) if index else names.embedding_norm
    assert norm is not None
    first, prefix = part.norm(norm, x), names.layer.format(index)
    second = part.norm(f"{prefix}.{names.attention_norm}", attention(part, index, first, first))
    return feed_forward(part, prefix, second, second)


def pre_norm_layer(part: EncoderPart, index: int, x: ir.Value) -> ir.Value:
    """Append a layer in the order of newer models: h = x + attention(norm(x)), then h + network(norm(h))."""
    names = part.shape.names
    prefix = names.layer.format(index)
    if index == 0 and names.embedding_norm is not None:
        first = before = part.norm(names.embedding_norm, x)
    else:
        first, before = part.norm(f"{prefix}.{names.attention_norm}", x), Activation.of(f"{prefix}.hidden", x)
    attended = attention(part, index, first, before)
    second, between = (
        part.norm(f"{prefix}.{names.output_norm}", attended),
        Activation.of(f"{prefix}.attended", attended),
    )
    return feed_forward(part, prefix, second, between)


def _output_norm(shape: EncoderShape, index: int) -> str:
    return f"{shape.names.layer.format(index)}.{shape.names.output_norm}"
