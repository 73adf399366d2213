"""Inputs of graphs that read texts: int64 [batch, sequence], padded on the right."""

from __future__ import annotations

import onnx_ir as ir

from embedpack_export.graph.context import InputSpec

TEXT_HIDDEN = ("batch", "sequence")
# Token ids; 1 for real tokens, 0 for padding.
TEXT_INPUTS = (
    InputSpec("input_ids", ir.DataType.INT64, TEXT_HIDDEN),
    InputSpec("attention_mask", ir.DataType.INT64, TEXT_HIDDEN),
)
