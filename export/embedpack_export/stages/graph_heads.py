"""Heads of text graphs and vision graphs: the last hidden states to the outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from embedpack.pack.graph_io import (
    ATTENTION_MASK,
    IMAGE_AXES,
    IMAGE_EMBEDS,
    IMAGE_TOKEN_AXES,
    MARK_INDEX,
    MARK_VECTORS,
    POOL_MASK,
    SCORE,
    SENTENCE_EMBEDDING,
    TOKEN_AXES,
    TOKEN_EMBEDDINGS,
    TOKEN_LIMIT,
)
from embedpack.pack.manifest import Pooling
from embedpack.vectors.arrays import Float32
from embedpack_export.families.heads import MarkHead, ScoreHead, SingleHead
from embedpack_export.graph.builder import GraphBuilder
from embedpack_export.graph.chunk_sums import chunk_sums
from embedpack_export.graph.context import GraphContext
from embedpack_export.graph.head_layers import head_layers
from embedpack_export.graph.outputs import VectorOutput, unit, vector_outputs
from embedpack_export.graph.pooled_token import POOLED_TOKENS, pooled_token
from embedpack_export.graph.pooling import POOL
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.stages.output_codes import SpaceCodes

# Appends heads to the last hidden states and declares the outputs.
Heads: TypeAlias = Callable[[GraphContext, ir.Value], None]


def text_heads(plan: ExportPlan, codes: SpaceCodes | None, offset: Float32 | None = None) -> Heads:
    """Heads of a text graph: single vectors and multi-vectors, those that the model has.

    Without `codes` they return float32 vectors only. `offset`, float32 [dimensions], is added to all last hidden states
    and corrects the mean error of the layers before.
    """

    def single_vectors(head: SingleHead, context: GraphContext, hidden: ir.Value) -> None:
        g = context.graph
        alone = plan.tokens is None and not plan.late_chunking
        pooled = _pooled(context, hidden, head.pooling, alone=alone)
        vector = head_layers(context, pooled, head.layers)
        declared = _output(codes, SENTENCE_EMBEDDING, ("batch",), plan.dimensions)
        declared = replace(declared, normalized=head.normalize, int8_lengths=head.similarity == "dot")
        vector_outputs(g, unit(g, vector) if head.normalize else vector, declared)

    def append(context: GraphContext, hidden: ir.Value) -> None:
        g = context.graph
        hidden = _corrected(g, hidden, offset)
        if plan.single is not None:
            single_vectors(plan.single, context, hidden)
        if plan.tokens is not None:
            states = hidden if plan.single is None else _first_states(g, hidden)
            projected = head_layers(context, states, plan.tokens.layers)
            vectors = unit(g, projected)
            vector_outputs(g, vectors, _output(codes, TOKEN_EMBEDDINGS, TOKEN_AXES, plan.tokens.dimensions))
        if plan.late_chunking:
            chunk_sums(g, hidden, plan.dimensions)

    return append


def _pooled(context: GraphContext, hidden: ir.Value, pooling: Pooling, *, alone: bool) -> ir.Value:
    """Append the pooled states, float32 [batch, hidden]; `alone`: nothing else reads the hidden states."""
    g, mask = context.graph, context.inputs[ATTENTION_MASK]
    if alone and pooling in POOLED_TOKENS and context.format.device == "cpu":
        return pooled_token(g, hidden, mask, pooling)
    return POOL[pooling](g, hidden, context.inputs.get(POOL_MASK, mask))


def _first_states(g: GraphBuilder, hidden: ir.Value) -> ir.Value:
    """Append the states of the first tokens, up to the optional input `token_limit`; all by default."""
    limit = g.optional_input(TOKEN_LIMIT, (1,), np.array([np.iinfo(np.int64).max]))
    return g.op("Slice", [hidden, g.constant([0], np.int64), limit, g.constant([1], np.int64)])


def score_heads(head: ScoreHead, offset: Float32 | None = None) -> Heads:
    """Heads of a graph that scores pairs: the output `score`, float32 [batch]; `offset` as of `text_heads`."""

    def append(context: GraphContext, hidden: ir.Value) -> None:
        g = context.graph
        pooled = _pooled(context, _corrected(g, hidden, offset), head.pooling, alone=True)
        logits = head_layers(context, pooled, head.layers)
        g.output(g.op("Squeeze", [logits, g.constant([-1], np.int64)]), SCORE, ir.DataType.FLOAT, ["batch"])

    return append


def mark_heads(head: MarkHead, offset: Float32 | None = None) -> Heads:
    """Heads of a graph that scores lists: the input `mark_index`, the output `mark_vectors`; `offset` as above."""

    def append(context: GraphContext, hidden: ir.Value) -> None:
        g = context.graph
        index = g.input(MARK_INDEX, ir.DataType.INT64, ["marks", 2])
        marks = g.op("GatherND", [_corrected(g, hidden, offset), index])
        vectors = head_layers(context, marks, head.layers)
        g.output(vectors, MARK_VECTORS, ir.DataType.FLOAT, ["marks", head.dimensions])

    return append


def scoring_heads(head: ScoreHead | MarkHead, offset: Float32 | None = None) -> Heads:
    """Heads of a graph that scores pairs or lists; `offset` as above."""
    return mark_heads(head, offset) if isinstance(head, MarkHead) else score_heads(head, offset)


def _output(codes: SpaceCodes | None, name: str, axes: tuple[str, ...], dimensions: int) -> VectorOutput:
    if codes is None:
        return VectorOutput(name, axes, dimensions)
    fit = codes.fits.get(name)
    codebook = None if fit is None else fit.codebook
    return VectorOutput(name, axes, dimensions, codes.int8_scales[name], codebook, codes.centers.get(name))


def _corrected(g: GraphBuilder, hidden: ir.Value, offset: Float32 | None) -> ir.Value:
    return hidden if offset is None else g.op("Add", [hidden, g.constant(offset, np.float32)])


def image_token_heads(context: GraphContext, hidden: ir.Value) -> None:
    """Declare the output of a vision graph: the vectors of an image's tokens, float32 [image_tokens, hidden]."""
    context.graph.output(hidden, IMAGE_EMBEDS, ir.DataType.FLOAT, IMAGE_TOKEN_AXES)


def image_vector_heads(plan: ExportPlan, codes: SpaceCodes | None) -> Heads:
    """Heads of a vision graph that gives the single vector of an image; without `codes` float32 alone."""

    def append(context: GraphContext, hidden: ir.Value) -> None:
        output = _output(codes, SENTENCE_EMBEDDING, IMAGE_AXES, plan.dimensions)
        vector_outputs(context.graph, unit(context.graph, hidden), output)

    return append
